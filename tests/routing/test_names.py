"""What a `model` name means."""

import pytest

from locavore.core.backend import Backend, Place
from locavore.core.errors import RequestError
from locavore.core.policy import Policy, Require, Rule, When
from locavore.routing.loose_ends import loose_ends
from locavore.routing.names import Names
from locavore.routing.router import Router


def backend(name: str, place: Place = Place.PUBLIC_API, model: str | None = None) -> Backend:
    provider, _, rest = name.partition("/")
    return Backend(
        id=name,
        provider=provider,
        model=model or rest,
        url="http://127.0.0.1:1",
        dialect="openai",
        place=place,
    )


GPT = backend("openai/gpt-4.1")
QWEN = backend("home/qwen3-8b", Place.ON_PREM, model="Qwen/Qwen3-8B")
TWIN = backend("attic/qwen3-8b", Place.ON_PREM)
NAMES = Names(
    (GPT, QWEN, TWIN),
    wildcards={"openai": backend("openai/*")},
    only_named=(backend("openai/gpt-4o"),),
    aliases={
        "fast": "home/qwen3-8b",
        "faster": "fast",
        "gpt-4o": "auto",
        "loop": "pool",
        "pool": "loop",
        "old": "gone/model",
        "fine": "openai/gpt-5",
    },
)


@pytest.mark.parametrize(
    ("name", "kind", "ids"),
    [
        ("openai/gpt-4.1", "backend", ["openai/gpt-4.1"]),
        ("openai/gpt-4o", "backend", ["openai/gpt-4o"]),
        ("openai/brand-new", "backend", ["openai/brand-new"]),
        ("openai/a/b", "backend", ["openai/a/b"]),
        ("fast", "alias", ["home/qwen3-8b"]),
        ("faster", "alias", ["home/qwen3-8b"]),
        ("fine", "alias", ["openai/gpt-5"]),
        ("gpt-4.1", "bare", ["openai/gpt-4.1"]),
        ("Qwen/Qwen3-8B", "bare", ["home/qwen3-8b"]),
    ],
)
def test_names_of_one_backend(name: str, kind: str, ids: list[str]) -> None:
    found = NAMES.resolve(name)
    assert (found.kind, found.named, [b.id for b in found.backends]) == (kind, True, ids)


@pytest.mark.parametrize(
    ("name", "kind", "virtual", "count"),
    [
        ("auto", "auto", "auto", 3),
        ("local", "local", "local", 2),
        ("cloud", "cloud", "cloud", 1),
        ("gpt-4o", "alias", "auto", 3),  # an alias comes before a bare name
    ],
)
def test_virtual_names(name: str, kind: str, virtual: str, count: int) -> None:
    found = NAMES.resolve(name)
    assert (found.kind, found.virtual, len(found.backends)) == (kind, virtual, count)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("openai/", "model"),
        ("home/qwen3", "did you mean"),
        ("hme/qwen3-8b", "'home/qwen3-8b'"),
        ("qwen3-8b", "name one of attic/qwen3-8b, home/qwen3-8b"),
        ("zzz", "GET /v1/models"),
        ("", "GET /v1/models"),
        ("loop", "leads back to itself"),
        ("old", "'gone/model' does not exist"),
        ("x" * 100_000, "GET /v1/models"),
    ],
)
def test_a_name_nothing_answers_to_is_a_404_with_the_nearest(name: str, hint: str) -> None:
    with pytest.raises(RequestError) as caught:
        NAMES.resolve(name)
    assert (caught.value.status, caught.value.code) == (404, "model_not_found")
    assert caught.value.param == "model"
    assert hint in caught.value.message
    assert len(caught.value.message) < 500


def test_every_listed_name_resolves() -> None:
    names = Names((GPT, QWEN), aliases={"fast": "home/qwen3-8b"})
    assert names.listed() == ["auto", "local", "cloud", "fast", "openai/gpt-4.1", "home/qwen3-8b"]
    assert all(names.resolve(name).backends for name in names.listed())
    assert Names((QWEN,)).listed() == ["auto", "local", "home/qwen3-8b"]


def test_a_bare_name_of_a_providers_own_family_reaches_it() -> None:
    """Clients made for one provider send its names bare, e.g. Claude Code."""
    names = Names((QWEN,), wildcards={p: backend(f"{p}/*") for p in ("anthropic", "openrouter")})
    found = names.resolve("claude-sonnet-4-5")
    assert (found.kind, found.backends[0].id) == ("bare", "anthropic/claude-sonnet-4-5")
    with pytest.raises(RequestError):
        names.resolve("gpt-4.1")
    own = Names((backend("home/gpt-4.1"),), wildcards={"openai": backend("openai/*")})
    assert own.resolve("gpt-4.1").backends[0].id == "home/gpt-4.1"


def test_a_wildcards_model_is_unlearned_until_it_is_learned() -> None:
    policy = Policy(aliases={"fast": "openai/mini"})
    router = Router(policy, (QWEN,), wildcards={"openai": backend("openai/*")})
    for name in ("openai/mini", "fast"):
        assert router.unlearned(name) == "openai/mini"
    assert router.unlearned("gpt-mini") == "openai/gpt-mini"
    for name in ("auto", "home/qwen3-8b", "no such name"):
        assert router.unlearned(name) is None
    router.learn(backend("openai/mini", model="mini-2026"))
    assert router.unlearned("fast") is None
    assert router.route("fast").resolved.backends[0].model == "mini-2026"


def test_loose_ends_are_told() -> None:
    policy = Policy(
        baseline="gone/big",
        aliases={"fast": "home/qwen3-8b", "slow": "gone/slow", "far": "cloud"},
        fallbacks={"home/qwen3-8b": ("gone/other", "auto")},
        rules=(
            Rule(name="a", when=When(model="gone/x"), require=Require(farthest=Place.ON_PREM)),
            Rule(name="b", require=Require(backends=frozenset({"home/qwen3-8b", "gone/y"}))),
        ),
    )
    found = loose_ends(policy, Names((QWEN,), aliases=policy.aliases))
    told = "\n".join(found)
    for name in ("gone/big", "gone/slow", "'far'", "gone/other", "gone/x", "gone/y"):
        assert name in told
    assert len(found) == 6
    assert loose_ends(Policy(aliases={"fast": "home/qwen3-8b"}), NAMES) == []

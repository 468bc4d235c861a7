"""Client keys: hashed at rest, shown once, never wider than who made them."""

import contextlib
import json
import sqlite3
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from locavore.cli import main
from locavore.core.access import Grant, Quota, fingerprint, rule_of, widened
from locavore.core.backend import Backend, Place
from locavore.core.errors import RequestError
from locavore.ledger.keys import KeyStore, compiled
from locavore.ledger.sqlite import store_path

T0_S = 1_767_268_800.0


class Clock:
    now_s = T0_S

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(tmp_path: Path, clock: Clock) -> Iterator[KeyStore]:
    with contextlib.closing(KeyStore(tmp_path, clock=clock)) as opened:
        yield opened


def test_c102_a_secret_is_in_no_file(store: KeyStore, tmp_path: Path) -> None:
    secret = store.create(Grant(name="bob"))
    assert store.compiled() == {fingerprint(secret): Grant(name="bob")}
    store.close()
    kept = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert secret[6:].encode() not in kept
    assert fingerprint(secret).encode() in kept
    assert store_path(tmp_path).stat().st_mode & 0o077 == 0


def test_c102_hostile_names_are_refused_and_never_reach_sql(store: KeyStore) -> None:
    for name in ("", "a" * 65, "x'; DROP TABLE keys; --", "ü", "a b", "-a"):
        with pytest.raises(RequestError, match="key name"):
            store.create(Grant(name=name))
        with pytest.raises(RequestError, match="no key is named"):
            store.revoke(name)
    assert store.list() == []


def test_a_rotated_key_keeps_its_old_secret_for_the_grace_only(
    store: KeyStore, clock: Clock
) -> None:
    old = store.create(Grant(name="bob", tenant="acme"))
    new = store.rotate("bob", grace_s=60)
    grants = store.compiled()
    assert grants[fingerprint(new)].expires_s is None
    assert grants[fingerprint(old)].expires_s == T0_S + 60  # a worker needs no other news
    clock.now_s += 60
    assert store.compiled() == {fingerprint(new): Grant(name="bob", tenant="acme")}


def test_a_revoked_key_is_gone_with_all_it_has_minted(store: KeyStore) -> None:
    boss = Grant(name="boss")
    store.create(boss)
    store.create(Grant(name="child"), minter=boss)
    store.create(Grant(name="grandchild"), minter=Grant(name="child"))
    store.create(Grant(name="stranger"))
    store.revoke("boss")
    assert [grant.name for grant in store.compiled().values()] == ["stranger"]
    assert [line.state for line in store.list()] == ["revoked", "revoked", "revoked", "active"]
    with pytest.raises(RequestError, match="a revoked key"):
        store.rotate("boss")


def test_an_expired_key_is_not_compiled(store: KeyStore, clock: Clock) -> None:
    store.create(Grant(name="bob", expires_s=T0_S + 10))
    assert len(store.compiled()) == 1
    clock.now_s += 10
    assert store.compiled() == {}
    assert store.list()[0].state == "expired"
    with pytest.raises(RequestError, match="has passed"):
        store.create(Grant(name="late", expires_s=T0_S))


def test_the_version_tells_each_change(store: KeyStore) -> None:
    seen = [store.version()]
    store.create(Grant(name="bob"))
    seen.append(store.version())
    store.rotate("bob")
    seen.append(store.version())
    store.revoke("bob")
    seen.append(store.version())
    assert seen == sorted(set(seen))


def test_a_name_is_taken_once_even_after_revocation(store: KeyStore) -> None:
    store.create(Grant(name="bob"))
    store.revoke("bob")
    with pytest.raises(RequestError, match="exists"):
        store.create(Grant(name="bob"))


PARENT = Grant(
    name="p",
    tenant="acme",
    team="red",
    models=("home/*", "openai/gpt"),
    farthest=Place.PRIVATE_CLOUD,
    labels=frozenset({"health"}),
    expires_s=T0_S + 100,
)
CHILD: dict[str, Any] = {
    "name": "c",
    "tenant": "acme",
    "team": "red",
    "models": ("home/small",),
    "farthest": Place.ON_PREM,
    "labels": frozenset({"health", "more"}),
    "expires_s": T0_S + 50,
}


@pytest.mark.parametrize(
    "change",
    [
        {"admin": True},
        {"tenant": "other"},
        {"tenant": ""},
        {"team": "blue"},
        {"models": ()},
        {"models": ("home/small", "openai/gpt-2")},
        {"models": ("*",)},
        {"models": ("ho*",)},
        {"farthest": None},
        {"farthest": Place.PUBLIC_API},
        {"labels": frozenset()},
        {"expires_s": None},
        {"expires_s": T0_S + 101},
    ],
    ids=str,
)
def test_c103_a_key_cannot_mint_a_wider_key(store: KeyStore, change: dict[str, Any]) -> None:
    with pytest.raises(RequestError, match="wider"):
        store.create(Grant(**(CHILD | change)), minter=PARENT)
    assert store.compiled() == {}
    store.create(Grant(**CHILD), minter=PARENT)


@given(
    own=st.lists(st.sampled_from(["a/x", "a/y", "a/*", "a/x*", "b/*", "*", "b/z"]), max_size=3),
    child=st.lists(st.sampled_from(["a/x", "a/y", "a/*", "a/x*", "b/*", "*", "b/z"]), max_size=3),
)
def test_c103_what_a_minted_key_may_use_its_parent_may_use(
    own: list[str], child: list[str]
) -> None:
    parent, made = Grant(name="p", models=tuple(own)), Grant(name="c", models=tuple(child))
    if not widened(made, parent):
        for backend in ("a/x", "a/xx", "a/y", "b/z", "c/q"):
            assert parent.allows(backend) or not made.allows(backend)


def test_c103_what_a_minted_key_spends_its_parent_spends(store: KeyStore) -> None:
    def quota(name: str, limit: int) -> Quota:
        return Quota(scope="key", name=name, unit="usd", limit=Decimal(limit))

    parent = Grant(name="p", quotas=(quota("p", 10),))
    secret = store.create(Grant(name="c", quotas=(quota("c", 100),)), minter=parent)
    assert store.compiled()[fingerprint(secret)].quotas == (quota("c", 100), quota("p", 10))
    with pytest.raises(RequestError, match="no limit of key"):
        store.create(Grant(name="d", quotas=(quota("c", 1),)))


def backend(id_: str) -> Backend:
    provider, model = id_.split("/")
    return Backend(
        id=id_, provider=provider, model=model, url="", dialect="openai", place=Place.ON_PREM
    )


def test_a_grant_becomes_a_rule_that_only_narrows() -> None:
    rule = rule_of(PARENT, [backend("home/a"), backend("openai/gpt"), backend("openai/other")])
    assert rule is not None
    assert rule.when.key == "p"
    assert rule.require.backends == frozenset({"home/a", "openai/gpt"})
    assert rule.require.farthest is Place.PRIVATE_CLOUD
    assert rule.set_labels == {"health"}
    assert rule_of(Grant(name="free"), []) is None


def run(home: Path, *args: str) -> Result:
    return CliRunner().invoke(main, ["keys", *args, "--home", str(home)])


def test_the_commands_make_list_rotate_and_revoke(tmp_path: Path) -> None:
    made = run(
        tmp_path, "create", "bob", "--tenant", "acme", "--model", "home/*", "--place", "on_prem",
        "--budget", "10.50/month", "--requests", "60/minute", "--concurrent", "4", "--json",
    )  # fmt: skip
    key = json.loads(made.stdout)["key"]
    grant = compiled(tmp_path)[fingerprint(key)]
    assert (grant.name, grant.tenant, grant.farthest) == ("bob", "acme", Place.ON_PREM)
    assert [(q.unit, q.limit, q.period) for q in grant.quotas] == [
        ("usd", Decimal("10.50"), "month"),
        ("requests", 60, "minute"),
        ("concurrent", 4, "total"),
    ]
    rotated = run(tmp_path, "rotate", "bob", "--grace", "1h")
    assert set(compiled(tmp_path)) == {fingerprint(key), fingerprint(rotated.stdout.strip())}
    listed = json.loads(run(tmp_path, "list", "--json").stdout)
    assert listed[0]["hint"] == rotated.stdout[:6]
    assert "bob" in run(tmp_path, "list").stdout
    assert run(tmp_path, "revoke", "bob").exit_code == 0
    assert compiled(tmp_path) == {}


@pytest.mark.parametrize(
    ("args", "complaint"),
    [
        (["--budget", "10"], "'10': write a number"),
        (["--budget", "-1/month"], "'-1/month'"),
        (["--tokens", "5/fortnight"], "'5/fortnight'"),
        (["--expires", "soon"], "'soon' is no span"),
        (["--place", "moon"], "'moon'"),
    ],
)
def test_a_wrong_option_is_named_with_its_value(
    tmp_path: Path, args: list[str], complaint: str
) -> None:
    result = run(tmp_path, "create", "bob", *args)
    assert result.exit_code == 2
    assert complaint in result.output


def test_migrations_bring_an_older_store_forward(tmp_path: Path) -> None:
    with contextlib.closing(sqlite3.connect(store_path(tmp_path))) as db:
        sql = Path("src/locavore/ledger/migrations/0001_calls.sql")
        db.executescript((Path(__file__).parents[2] / sql).read_text())
        db.execute("PRAGMA user_version = 1")
    with contextlib.closing(KeyStore(tmp_path)) as store:
        assert store.list() == []

"""The configuration file is read as a whole, and every problem is named."""

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from locavore.config import backend_of, describe, is_loopback, load, place_of_url
from locavore.config.reference import json_schema
from locavore.config.schema import File
from locavore.core.backend import Place
from locavore.core.errors import ConfigError

ISSUE_EXAMPLE = """
posture = "local_first"
stage = "observe"
baseline = "openai/gpt-4.1"
[[backend]]
id = "home/qwen3-8b"
url = "http://127.0.0.1:8000/v1"
dialect = "openai"
model = "qwen3-8b"
place = "on_prem"
context_tokens = 32768
capabilities = ["tools", "json_schema", "logprobs"]
api_key_env = "HOME_KEY"
price = { input_mtok = "0.10", output_mtok = "0.40" }
[[rule]]
name = "health data stays in the building"
when = { label = "health" }
require = { farthest = "on_prem" }
[alias]
"gpt-4o" = "auto"
"""


@pytest.fixture
def write(tmp_path: Path) -> Any:
    def write_file(text: str) -> Path:
        path = tmp_path / "config.toml"
        path.write_text(text, encoding="utf-8")
        return path

    return write_file


def problems(path: Path | None, env: dict[str, str] | None = None, **flags: Any) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(path, env or {}, flags)
    return caught.value.problems


def test_the_fixed_example_is_accepted(write: Any) -> None:
    config = load(write(ISSUE_EXAMPLE), {}, {})
    policy = config.policy
    assert (policy.posture, policy.stage, policy.baseline) == (
        "local_first",
        "observe",
        "openai/gpt-4.1",
    )
    assert policy.labels == {"health"}
    assert policy.aliases == {"gpt-4o": "auto"}
    assert policy.rules[0].require.farthest is Place.ON_PREM
    backend = backend_of(config.backends[0])
    assert backend.price is not None
    assert backend.price.rate.input_mtok == Decimal("0.10")
    assert backend.capabilities == {"chat", "tools", "json_schema", "logprobs"}
    assert (backend.model, backend.place, backend.provider) == ("qwen3-8b", Place.ON_PREM, "home")


def test_problems_of_keys_do_not_hide_problems_between_them(write: Any) -> None:
    found = problems(
        write('postur = "x"\n[[rule]]\nname = "a"\n[alias]\na = "a"\n[server]\nhost = "0.0.0.0"\n')
    )
    text = "\n".join(found)
    for part in ("postur", "neither requires nor labels", "leads back to itself", "without a key"):
        assert part in text
    assert len(found) == 4


def test_no_file_is_all_defaults(tmp_path: Path) -> None:
    config = load(None, {"LOCAVORE_HOME": str(tmp_path)}, {})
    assert config.path is None
    assert (config.server.host, config.server.port) == ("127.0.0.1", 4000)
    assert config.policy.stage == "route"


def test_a_file_in_the_home_is_found(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text('posture = "balanced"')
    assert load(None, {"LOCAVORE_HOME": str(tmp_path)}, {}).policy.posture == "balanced"


def test_a_home_that_is_a_file_is_a_problem(tmp_path: Path) -> None:
    path = tmp_path / "home"
    path.write_text("")
    (told,) = problems(None, {"LOCAVORE_HOME": str(path)})
    assert f"{str(path)!r} is a file" in told


def test_flags_win_over_environment_over_file(write: Any) -> None:
    path = write('[server]\nhost = "127.0.0.2"\nport = 1\n')
    env = {"LOCAVORE_PORT": "2", "LOCAVORE_HOST": "127.0.0.3"}
    assert load(path, {}, {}).server.port == 1
    assert load(path, env, {}).server.port == 2
    config = load(path, env, {"port": 3})
    assert (config.server.port, config.server.host) == (3, "127.0.0.3")
    assert (config.origin["port"], config.origin["host"]) == ("flag", "environment")


def test_the_environment_may_name_the_file(write: Any) -> None:
    path = write('posture = "quality_first"')
    assert load(None, {"LOCAVORE_CONFIG": str(path)}, {}).policy.posture == "quality_first"


def test_every_problem_is_named_by_file_key_and_value(write: Any) -> None:
    path = write(
        """
postur = "local_first"
stage = "rout"
[server]
port = 99999
[[backend]]
url = "http://x/v1"
context_tokens = "many"
[limits]
farthest = "moon"
max_cost_usd = "a lot"
"""
    )
    found = problems(path)
    assert all(line.startswith(f"{path}: ") for line in found)
    text = "\n".join(found)
    for part in (
        "postur: unknown key; did you mean 'posture'?",
        "stage: expected one of observe, route, got 'rout'; did you mean 'route'?",
        "server.port: expected a whole number <= 65535, got 99999",
        "backend[0].id: missing",
        "backend[0].context_tokens: expected a whole number, got 'many'",
        "limits.farthest: expected one of embedded, on_prem, private_cloud, public_api, got 'moon'",
        "limits.max_cost_usd: ",
    ):
        assert part in text
    assert len(found) == 7


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('[alias]\na = "b"\nb = "a"\n', "leads back to itself: a -> b -> a"),
        ('[alias]\nauto = "auto"\n', "leads back to itself: auto -> auto"),
        ('baseline = "gpt-4.1"', "baseline: expected `provider/model`, got 'gpt-4.1'"),
        ('[[backend]]\nid = "qwen"\nurl = "http://h/v1"', "expected `provider/model`, got 'qwen'"),
        ('[[backend]]\nid = "a/b"\nurl = "ftp://h"', "backend[0].url: expected http(s)"),
        (
            '[[backend]]\nid = "a/b"\nurl = "http://h"\n[[backend]]\nid = "a/b"\nurl = "http://h"',
            "backend[1].id: 'a/b' is defined twice",
        ),
        (
            '[[backend]]\nid = "a/b"\nurl = "http://h"\n[alias]\n"a/b" = "auto"',
            "alias.a/b: never used",
        ),
        (
            '[[backend]]\nid = "a/b"\nurl = "http://h"\ncapabilities = ["tool"]',
            "backend[0].capabilities: unknown 'tool'; did you mean 'tools'",
        ),
        (
            '[[backend]]\nid="a/b"\nurl="http://h"\ncapabilities=["tools"]\nlacks=["tools"]',
            "'tools' is also in capabilities",
        ),
        ("[limits]\nbackends = []", "limits.backends: an empty list allows nothing"),
        ('labels = ["a,b"]', "labels: expected letters"),
        ("posture = ", "file: not TOML"),
        ('backend = "x"', "backend: expected a list"),
        ("[server]\nport = true", "server.port: expected a whole number, got True"),
    ],
)
def test_mistakes_are_explained(write: Any, text: str, expected: str) -> None:
    assert expected in "\n".join(problems(write(text)))


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        (
            'labels = ["health"]\n[[rule]]\nname = "x"\nwhen = { label = "helth" }\n'
            'require = { farthest = "on_prem" }',
            "rule[0].when.label: unknown 'helth'; did you mean 'health'?",
        ),
        (
            'labels = ["health"]\n[[rule]]\nname = "x"\nset_labels = ["wealth"]',
            "rule[0].set_labels: unknown 'wealth'",
        ),
        (
            '[[rule]]\nname = "x"\nwhen = { task = "coding" }\nrequire = { farthest = "on_prem" }',
            "rule[0].when.task: unknown 'coding'; did you mean 'code'",
        ),
        ('[[rule]]\nname = "x"\n', "rule 'x' neither requires nor labels anything"),
        (
            '[[rule]]\nname = "a"\nrequire = { farthest = "on_prem" }\n'
            '[[rule]]\nname = "b"\nwhen = { task = "code" }\nrequire = { farthest = "public_api" }',
            "rule 'b' never changes anything: 'a' already requires as much",
        ),
        (
            '[limits]\nmax_cost_usd = "0.01"\n'
            '[[rule]]\nname = "b"\nwhen = { key = "k" }\nrequire = { max_cost_usd = "1" }',
            "rule 'b' never changes anything: 'limits'",
        ),
        (
            '[[rule]]\nname = "a"\nrequire = { max_cost_usd = 1 }\n'
            '[[rule]]\nname = "a"\nrequire = { max_cost_usd = 2 }',
            "'a' names two rules",
        ),
    ],
)
def test_unreachable_rules_are_errors(write: Any, rules: str, expected: str) -> None:
    assert expected in "\n".join(problems(write(rules)))


def test_rules_that_add_something_are_kept(write: Any) -> None:
    config = load(
        write(
            '[[rule]]\nname = "a"\nwhen = { task = "code" }\nrequire = { farthest = "on_prem" }\n'
            '[[rule]]\nname = "b"\nrequire = { farthest = "private_cloud" }\n'
        ),
        {},
        {},
    )
    assert [rule.name for rule in config.policy.rules] == ["a", "b"]


def test_environment_references_are_replaced_as_text(write: Any) -> None:
    path = write('[keys]\nteam = "${TEAM_KEY}"\n')
    assert load(path, {"TEAM_KEY": "s3cret"}, {}).keys == {"team": "s3cret"}
    assert "no environment variable 'TEAM_KEY'" in problems(path)[0]


def test_c107_strings_are_never_run(write: Any, tmp_path: Path) -> None:
    """Shell, format and template syntax stays what it is: text."""
    marker = tmp_path / "ran"
    for text in (f"$(touch {marker})", f"`touch {marker}`", "{0.__class__}", "%(home)s", "{{7*7}}"):
        config = load(write(f"[alias]\nx = '''{text}'''\n"), {"HOME": "/h"}, {})
        assert config.policy.aliases == {"x": text}
    nested = load(write('[alias]\nx = "${A}"\n'), {"A": "${B}", "B": "no"}, {})
    assert nested.policy.aliases == {"x": "${B}"}
    assert not marker.exists()


def test_secrets_are_not_shown(write: Any) -> None:
    path = write('[server]\nkey = "canary-1"\n[keys]\nteam = "canary-2"\n')
    config = load(path, {}, {})
    assert config.keys == {"default": "canary-1", "team": "canary-2"}
    for text in (repr(config), str(config), repr(config.server), "\n".join(describe(config))):
        assert "canary" not in text
    wrong = problems(write('[server]\nkey = ["canary-3"]\n[keys]\nteam = ["canary-4"]\n'))
    assert len(wrong) == 2
    assert "canary" not in "\n".join(wrong)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "example.org", "127.0.0.1.evil"])
def test_other_addresses_need_a_key(host: str) -> None:
    assert "without a key" in problems(None, {"LOCAVORE_HOME": "/nonexistent"}, host=host)[0]
    config = load(None, {"LOCAVORE_HOME": "/nonexistent", "LOCAVORE_KEY": "k"}, {"host": host})
    assert config.server.host == host


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "[::1]", "localhost"])
def test_loopback_needs_none(host: str) -> None:
    assert is_loopback(host)


def test_a_bad_port_names_its_variable() -> None:
    env = {"LOCAVORE_HOME": "/nonexistent", "LOCAVORE_PORT": "http"}
    assert problems(None, env) == ["LOCAVORE_PORT: expected a number up to 65535, got 'http'"]


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("http://127.0.0.1:8000/v1", Place.ON_PREM),
        ("http://10.1.2.3/v1", Place.ON_PREM),
        ("http://[::1]:1/v1", Place.ON_PREM),
        ("unix:/run/x.sock", Place.ON_PREM),
        ("https://api.openai.com/v1", Place.PUBLIC_API),
        ("http://looks-local/v1", Place.PUBLIC_API),
        ("http://8.8.8.8/v1", Place.PUBLIC_API),
        ("http://203.0.113.7/v1", Place.PUBLIC_API),  # private to `ipaddress`, ours to nobody
    ],
)
def test_a_place_that_is_not_told_is_the_farthest_it_may_be(url: str, place: Place) -> None:
    assert place_of_url(url) is place


def test_a_missing_file_is_a_problem(tmp_path: Path) -> None:
    assert "cannot be read" in problems(tmp_path / "none.toml")[0]


def test_the_version_is_the_policys_content(write: Any) -> None:
    first = load(write(ISSUE_EXAMPLE), {}, {}).policy.version
    again = load(write(ISSUE_EXAMPLE + "# a comment\n"), {}, {}).policy.version
    other = load(write(ISSUE_EXAMPLE.replace("local_first", "balanced")), {}, {}).policy.version
    assert first == again != other


def test_stage_follows_the_baseline(write: Any) -> None:
    assert load(write('baseline = "a/b"'), {}, {}).policy.stage == "observe"
    assert load(write(""), {}, {}).policy.stage == "route"


def test_no_env_turns_provider_variables_off(write: Any) -> None:
    assert load(write(""), {}, {}).discover.env
    assert not load(write(""), {}, {"env": False}).discover.env


def test_the_json_schema_covers_every_key() -> None:
    schema = json_schema()
    names = set(File.__struct_fields__)
    assert set(schema["$defs"]["File"]["properties"]) == names
    assert schema["$defs"]["File"]["additionalProperties"] is False
    assert "null" not in json.dumps(schema)


def test_a_missing_variable_is_told_once(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text('[server]\nhost = "0.0.0.0"\n[keys]\nweb = "${WEB_KEY}"\n')
    with pytest.raises(ConfigError) as caught:
        load(path, {}, {"home": str(tmp_path)})
    (told,) = str(caught.value).splitlines()
    assert "keys.web: ${WEB_KEY}: no environment variable 'WEB_KEY'" in told

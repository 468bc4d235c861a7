"""Keys over HTTP: made by a key for administration, never wider than it, shown once."""

import time
from collections.abc import Iterator
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from locavore.core.access import Grant, Quota
from locavore.core.backend import Place
from locavore.ledger.keys import KeyStore
from locavore.testing import ScriptedUpstream, replies
from locavore.testing.gateway import RunningGateway
from tests.conformance.client import CHAT, Answer, Client, backend

ACME = Grant(
    name="acme-admin",
    tenant="acme",
    admin=True,
    models=("home/*",),
    farthest=Place.ON_PREM,
    labels=frozenset({"health"}),
    quotas=(Quota(scope="key", name="acme-admin", unit="usd", limit=Decimal(10)),),
)


class Desk:
    """A gateway with three stored keys, and who is asking."""

    def __init__(self, gateway: RunningGateway, config: str, secrets: dict[str, str]) -> None:
        self.gateway, self.secrets = gateway, secrets
        self._config = config
        self._client = Client(gateway)

    def ask(self, who: str, method: str, path: str = "/admin/keys", body: Any = None) -> Answer:
        secret = self.secrets.get(who, who)
        return self._client.ask(method, path, body, {"authorization": f"Bearer {secret}"})

    def create(self, who: str, name: str, **fields: Any) -> Answer:
        return self.ask(who, "POST", body={"name": name, **fields})

    def names(self, who: str) -> list[str]:
        return [key["name"] for key in self.ask(who, "GET").json["data"]]

    def published(self) -> None:
        """What the supervisor does when the store's version changes."""
        self.gateway.reload(self._config)


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    home = tmp_path / "home"
    with closing(KeyStore(home)) as store:
        secrets = {
            "root": store.create(Grant(name="root", admin=True)),
            "acme": store.create(ACME),
            "data": store.create(Grant(name="data", tenant="acme")),
        }
    with ScriptedUpstream() as upstream:
        upstream.always(replies.chat("Hello"))
        config = backend("home/m", upstream)
        with RunningGateway(home, config) as gateway:
            yield Desk(gateway, config, secrets)


def test_a_minted_key_calls_models_until_it_is_revoked(desk: Desk) -> None:
    made = desk.create("root", "search", limits=[{"unit": "requests", "limit": "100"}])
    assert (made.status, made.headers["cache-control"]) == (201, "no-store")
    secret = made.json["key"]
    desk.published()
    assert desk.ask(secret, "POST", "/v1/chat/completions", CHAT).status == 200
    assert desk.ask("root", "DELETE", "/admin/keys/search").status == 204
    desk.published()
    assert desk.ask(secret, "POST", "/v1/chat/completions", CHAT).status == 401


def test_the_list_tells_who_made_a_key_and_no_secret(desk: Desk) -> None:
    before_s = time.time()
    secret = desk.create("root", "search", team="web").json["key"]
    answer = desk.ask("root", "GET")
    (key,) = [key for key in answer.json["data"] if key["name"] == "search"]
    assert (key["minted_by"], key["state"], key["team"]) == ("root", "active", "web")
    assert before_s <= key["created_s"] <= time.time()
    assert secret.startswith(key["hint"])
    for each in (secret, *desk.secrets.values()):
        assert each[8:].encode() not in answer.body


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/admin/keys"),
        ("POST", "/admin/keys"),
        ("POST", "/admin/keys/data/rotate"),
        ("DELETE", "/admin/keys/data"),
    ],
)
def test_a_data_key_administers_nothing(desk: Desk, method: str, path: str) -> None:
    refused = desk.ask("data", method, path, {"name": "mine"})
    assert (refused.status, refused.error["code"]) == (403, "admin_key_required")
    unknown = desk.ask("lv-nobody", method, path, {"name": "mine"})
    assert (unknown.status, unknown.error["code"]) == (401, "invalid_api_key")
    assert desk.names("root") == ["acme-admin", "data", "root"]


def test_an_admin_key_calls_no_model(desk: Desk) -> None:
    refused = desk.ask("root", "POST", "/v1/chat/completions", CHAT)
    assert (refused.status, refused.error["code"]) == (403, "admin_key")


def test_without_keys_nobody_is_an_administrator(tmp_path: Path) -> None:
    with RunningGateway(tmp_path / "home") as gateway:
        refused = Client(gateway).get("/admin/keys")
    assert (refused.status, refused.error["code"]) == (403, "admin_key_required")


@pytest.mark.parametrize(
    "wider",
    [
        {"tenant": "other"},
        {"models": []},
        {"models": ["cloud/x"]},
        {"farthest": "public_api"},
        {"labels": []},
    ],
    ids=str,
)
def test_c103_a_key_mints_no_wider_key_over_http(desk: Desk, wider: dict[str, Any]) -> None:
    refused = desk.create("acme", "child", **wider)
    assert (refused.status, refused.error["code"]) == (403, "wider_key")
    assert "child" not in desk.names("root")


def test_c103_what_is_left_out_is_as_in_the_key_that_asks(desk: Desk) -> None:
    assert desk.create("acme", "child", limits=[{"unit": "usd", "limit": 99}]).status == 201
    (child,) = [key for key in desk.ask("acme", "GET").json["data"] if key["name"] == "child"]
    told = (child["tenant"], child["models"], child["farthest"], child["labels"], child["admin"])
    assert told == ("acme", ["home/*"], "on_prem", ["health"], False)
    limits = [(limit["key"], limit["limit"]) for limit in child["limits"]]
    assert limits == [("child", "99"), ("acme-admin", "10")]


def test_c103_a_key_sees_and_rotates_no_wider_key(desk: Desk) -> None:
    assert desk.names("acme") == ["acme-admin"]
    for name in ("root", "data"):  # `data` has no budget: a secret for it would be a way around
        for method, path in (("POST", f"/{name}/rotate"), ("DELETE", f"/{name}")):
            refused = desk.ask("acme", method, "/admin/keys" + path)
            assert (refused.status, refused.error["code"]) == (404, "no_such_key")
    desk.published()
    assert desk.ask("data", "POST", "/v1/chat/completions", CHAT).status == 200


def test_c103_a_revoked_key_mints_nothing_even_before_workers_know(desk: Desk) -> None:
    assert desk.ask("root", "DELETE", "/admin/keys/acme-admin").status == 204
    for method, path in (
        ("POST", ""),
        ("POST", "/acme-admin/rotate"),
        ("DELETE", "/acme-admin"),
    ):
        body = {"name": "late"} if not path else None
        refused = desk.ask("acme", method, "/admin/keys" + path, body)
        assert (refused.status, refused.error["code"]) == (403, "revoked_key")


def test_a_rotation_gives_a_new_secret_and_ends_the_old_one(desk: Desk) -> None:
    new = desk.ask("root", "POST", "/admin/keys/data/rotate").json["key"]
    desk.published()
    assert desk.ask("data", "GET", "/v1/models").status == 401
    assert desk.ask(new, "GET", "/v1/models").status == 200
    kept = desk.ask("root", "POST", "/admin/keys/data/rotate", {"grace_s": 60}).json["key"]
    desk.published()
    for secret in (new, kept):
        assert desk.ask(secret, "GET", "/v1/models").status == 200


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"limits": [{"unit": "usd", "limit": "NaN"}]}, "bad_quota"),
        ({"limits": [{"unit": "requests", "limit": "1e400"}]}, "bad_quota"),
        ({"limits": [{"unit": "usd", "limit": "-1"}]}, "bad_quota"),
        ({"limits": [{"unit": "usd", "limit": "1", "zone": "Moon/Base"}]}, "bad_quota"),
        ({"limits": [{"unit": "concurrent", "limit": "1"}]}, "bad_quota"),
        ({"expires_s": 1}, "expired"),
        ({"name": "a b"}, None),
        ({"name": "root"}, "name_taken"),
        ({"tenant": "a\0b"}, None),
        ({"farthest": "moon"}, None),
        ({"budget": 1}, None),
    ],
    ids=str,
)
def test_what_cannot_be_kept_is_refused(
    desk: Desk, fields: dict[str, Any], code: str | None
) -> None:
    refused = desk.ask("root", "POST", body={"name": "new"} | fields)
    assert refused.status == 400
    assert refused.error["type"] == "invalid_request_error"
    assert refused.error["code"] == code
    assert desk.names("root") == ["acme-admin", "data", "root"]

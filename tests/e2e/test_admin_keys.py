"""A key made over HTTP works on every worker of a running gateway, and ends there."""

from contextlib import closing
from pathlib import Path

from locavore.core.access import Grant
from locavore.ledger.keys import KeyStore
from locavore.testing import ScriptedUpstream, replies
from tests.e2e.serving import QUIET, Serving, eventually


def test_keys_are_made_rotated_and_revoked_while_the_gateway_runs(tmp_path: Path) -> None:
    with closing(KeyStore(tmp_path)) as store:
        admin = {"x-api-key": store.create(Grant(name="root", admin=True))}
    with ScriptedUpstream() as upstream:
        upstream.always(replies.chat("Hello"))
        config = f'{QUIET}[[backend]]\nid = "home/m"\nurl = "{upstream.url}"\n'
        with Serving(tmp_path, config, "--workers=2") as serving:

            def statuses(secret: str) -> set[int]:
                return {serving.chat({"x-api-key": secret}).status for _ in range(8)}

            made = serving.call("POST", "/admin/keys", {"name": "search"}, admin)
            assert made.status == 201
            first = made.json["key"]
            eventually(lambda: statuses(first) == {200}, "the key works")
            path = "/admin/keys/search"
            second = serving.call("POST", f"{path}/rotate", None, admin).json["key"]
            eventually(lambda: statuses(first) == {401}, "the old secret ends")
            # One worker may hear of a change before the other.
            eventually(lambda: statuses(second) == {200}, "the new secret works")
            assert serving.call("DELETE", path, None, admin).status == 204
            eventually(lambda: statuses(second) == {401}, "the key ends")
            for secret in (first, second):
                assert secret not in serving.stdout + serving.stderr

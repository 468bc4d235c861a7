"""Budget alerts: once per threshold and period, to a real web server, and never lost."""

import base64
import contextlib
import hmac
import json
import threading
import time
from collections.abc import Iterator
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from locavore.core.access import Quota
from locavore.core.errors import StoreError
from locavore.ledger.alerts import run, signed, webhook
from locavore.ledger.budgets import Authorizer, Reservation, leases_dir
from locavore.ledger.database import Database
from locavore.ledger.leases import Account, LeaseTable
from locavore.ledger.slices import NANO
from locavore.ledger.sqlite_leases import SqliteLeases
from locavore.ledger.store import open_store

BUDGET = Quota(scope="key", unit="usd", limit=Decimal(10), period="month")


class Hook:
    """A web server that keeps what it is told, or fails as it is told."""

    def __init__(self) -> None:
        self.got: list[dict[str, Any]] = []
        self.sent: list[tuple[dict[str, str], bytes]] = []
        self.status = 204
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                if outer.status == 204:
                    outer.got.append(json.loads(body))
                    outer.sent.append(({k.lower(): v for k, v in self.headers.items()}, body))
                self.send_response(outer.status)
                if outer.status == 307:
                    self.send_header("location", "/elsewhere")
                self.end_headers()

            def log_message(self, *_: object) -> None: ...

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/hook"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def hook() -> Iterator[Hook]:
    made = Hook()
    yield made
    made.server.shutdown()
    made.server.server_close()


@pytest.fixture
def db(tmp_path: Path) -> Iterator[Database]:
    with contextlib.closing(open_store(tmp_path)) as opened:
        yield opened


def used(usd: int, subject: str = "bob", start_s: int = 0) -> dict[Any, int]:
    return {Account(BUDGET.id, subject, start_s): usd * int(NANO)}


def test_each_threshold_is_told_once_per_period(db: Database, hook: Hook) -> None:
    for usd in (4, 5, 6, 8, 9, 10, 12):
        run(db, [BUDGET], used(usd), hook.url)
    assert [alert["percent"] for alert in hook.got] == [50, 80, 100]
    assert hook.got[0] == {
        "event": "budget_threshold",
        "scope": "key",
        "subject": "bob",
        "unit": "usd",
        "period": "month",
        "period_start_s": 0,
        "percent": 50,
        "used": "5",
        "limit": "10",
        "hard": True,
        "quota": BUDGET.id,
    }
    run(db, [BUDGET], used(6, start_s=1), hook.url)
    run(db, [BUDGET], used(6, subject="eve"), hook.url)
    assert [alert["percent"] for alert in hook.got] == [50, 80, 100, 50, 50]


def test_a_leap_over_two_thresholds_is_told_as_the_higher_one(db: Database, hook: Hook) -> None:
    run(db, [BUDGET], used(9), hook.url)
    run(db, [BUDGET], used(7), hook.url)  # something was given back
    assert [alert["percent"] for alert in hook.got] == [80]


def test_an_alert_is_not_lost_when_the_webhook_fails(db: Database, hook: Hook) -> None:
    hook.status = 500
    with pytest.raises(StoreError, match="HTTP Error 500"):
        run(db, [BUDGET], used(5), hook.url)
    hook.status = 204
    assert run(db, [BUDGET], used(5), hook.url) == 1
    assert run(db, [BUDGET], used(5), "http://127.0.0.1:9/") == 0  # delivered: nobody is asked


def test_only_known_budgets_in_dollars_are_told(db: Database, hook: Hook) -> None:
    requests = Quota(scope="key", unit="requests", limit=Decimal(10), period="month")
    run(db, [requests], used(9), hook.url)
    assert hook.got == []


def test_what_a_call_spends_reaches_the_webhook(db: Database, hook: Hook, tmp_path: Path) -> None:
    budget = Quota(scope="all", unit="usd", limit=Decimal(1), period="day")
    leases = SqliteLeases(tmp_path)
    limits = Authorizer([budget], leases, LeaseTable(leases_dir(tmp_path)))
    made = limits.reserve(None, None, Decimal("0.6"), 0)
    assert isinstance(made, Reservation)
    limits.settle(made, Decimal("0.55"), None)
    run(db, [budget], leases.committed(), hook.url)
    assert [(alert["scope"], alert["percent"]) for alert in hook.got] == [("all", 50)]
    limits.close()


def test_a_webhook_is_http(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="'file:///etc/passwd'"):
        webhook("file:///etc/passwd")


def test_an_alert_is_signed_as_standard_webhooks_are(db: Database, hook: Hook) -> None:
    secret = "whsec_" + base64.b64encode(b"0123456789abcdef01234567").decode()
    run(db, [BUDGET], used(5), hook.url, secret)
    ((headers, body),) = hook.sent
    signed_text = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    expected = hmac.digest(b"0123456789abcdef01234567", signed_text, "sha256")
    assert headers["webhook-signature"] == f"v1,{base64.b64encode(expected).decode()}"
    assert abs(int(headers["webhook-timestamp"]) - time.time()) < 3600
    assert secret.encode() not in body + str(headers).encode()


def test_the_signature_is_the_one_that_the_specification_computes() -> None:
    """The example of the Standard Webhooks libraries."""
    headers = signed(
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        "msg_p5jXN8AQM9LWM0D4loKWxJek",
        b'{"test": 2432232314}',
        1614265330,
    )
    assert headers["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_a_repeated_alert_has_the_same_id_and_a_redirect_is_a_failure(
    db: Database, hook: Hook, tmp_path: Path
) -> None:
    hook.status = 307
    with pytest.raises(StoreError, match="307"):
        run(db, [BUDGET], used(5), hook.url)
    hook.status = 204
    run(db, [BUDGET], used(5), hook.url)
    with contextlib.closing(open_store(tmp_path / "other")) as other:  # another gateway's books
        run(other, [BUDGET], used(5), hook.url)
    first, second = (headers for headers, _ in hook.sent)
    assert first["webhook-id"] == second["webhook-id"]
    assert "webhook-signature" not in first

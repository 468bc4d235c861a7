"""Tells a webhook when a budget is half, nearly or wholly used; each threshold once per period.

Run by the supervisor, never on a call's path. An alert is marked after it was delivered, so a
lost answer may repeat it (with the same id) and a crash cannot swallow it. Each is signed as
https://www.standardwebhooks.com/ describes, when there is a secret.
"""

import base64
import hashlib
import hmac
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal

import msgspec

from locavore.core.access import Quota
from locavore.core.errors import StoreError
from locavore.ledger.database import Database
from locavore.ledger.leases import Account
from locavore.ledger.slices import NANO, limit_of
from locavore.ledger.sqlite import transaction

PERCENTS = (50, 80, 100)
TIMEOUT_S = 5.0


class Alert(msgspec.Struct, frozen=True, kw_only=True):
    """The JSON that is posted. `used` counts what workers hold reserved, too."""

    event: str = "budget_threshold"
    scope: str
    subject: str
    unit: str
    period: str
    period_start_s: int
    percent: int
    used: Decimal
    limit: Decimal
    hard: bool
    """True: at 100 percent calls are refused."""
    quota: str


def due(quotas: Iterable[Quota], committed: Mapping[Account, int], *, now_s: float) -> list[Alert]:
    """The highest threshold that each account of a budget in dollars has reached by now."""
    by_id = {quota.id: quota for quota in quotas if quota.unit == "usd"}
    found = []
    for account, used in committed.items():
        quota = by_id.get(account.quota)
        if quota is None or account.start_s > now_s:
            continue
        limit = limit_of(quota)
        reached = [percent for percent in PERCENTS if used * 100 >= limit * percent and used]
        if reached:
            found.append(_alert(quota, account, used, reached[-1]))
    return found


def _alert(quota: Quota, account: Account, used: int, percent: int) -> Alert:
    return Alert(
        scope=quota.scope,
        subject=account.subject,
        unit=quota.unit,
        period=quota.period,
        period_start_s=account.start_s,
        percent=percent,
        used=used / NANO,
        limit=quota.limit,
        hard=quota.hard,
        quota=quota.id,
    )


def deliver(
    db: Database, alerts: Iterable[Alert], post: Callable[[str, bytes], None], *, now_s: float
) -> int:
    """Post the alerts that were not delivered yet; how many. Raises StoreError, after all were
    tried, when the webhook failed: the next round tries again."""
    count, failure = 0, None
    for alert in alerts:
        key = (alert.quota, alert.subject, alert.period_start_s, alert.percent)
        sql = (
            "SELECT 1 FROM alerts WHERE quota = ? AND subject = ? AND start_s = ? AND percent >= ?"
        )
        if db.execute(sql, key).fetchone():
            continue
        try:
            post(_id_of(alert), msgspec.json.encode(alert))
        except OSError as error:
            failure = str(error)
            continue
        with transaction(db):
            sql = "INSERT INTO alerts VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"
            db.execute(sql, (*key, now_s))
        count += 1
    if failure is not None:
        raise StoreError(f"the webhook failed: {failure}")
    return count


def _id_of(alert: Alert) -> str:
    """The same for the same threshold, so that the other side can drop a repetition."""
    key = (alert.quota, alert.subject, str(alert.period_start_s), str(alert.percent))
    return "alert_" + hashlib.blake2b("\0".join(key).encode(), digest_size=16).hexdigest()


def webhook(url: str, secret: str | None = None) -> Callable[[str, bytes], None]:
    """Posts JSON with an id to `url`, signed with `secret` if there is one. Raises StoreError for
    anything but http and https; the returned function raises OSError when the other side does not
    answer with 2xx. A redirect is no answer: it could lead anywhere."""
    if not url.startswith(("http://", "https://")):
        raise StoreError(f"alert webhook {url!r}: only http and https")
    opener = urllib.request.build_opener(_Direct)

    def post(id_: str, body: bytes) -> None:
        headers = {"content-type": "application/json", **signed(secret, id_, body, time.time())}
        request = urllib.request.Request(url, data=body, headers=headers, method="POST")  # noqa: S310
        try:
            with opener.open(request, timeout=TIMEOUT_S):
                pass
        except urllib.error.HTTPError as error:
            error.close()  # it holds the connection
            raise

    return post


def signed(secret: str | None, id_: str, body: bytes, now_s: float) -> dict[str, str]:
    """Headers of Standard Webhooks 1.0: HMAC-SHA256 over `id.timestamp.body`, in Base64."""
    headers = {"webhook-id": id_, "webhook-timestamp": str(int(now_s))}
    if secret is None:
        return headers
    text = secret.removeprefix("whsec_")
    key = base64.b64decode(text) if text != secret else secret.encode()
    message = f"{id_}.{int(now_s)}.".encode() + body
    digest = base64.b64encode(hmac.digest(key, message, "sha256")).decode()
    return headers | {"webhook-signature": f"v1,{digest}"}


class _Direct(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: object) -> None:
        return None


def run(
    db: Database,
    quotas: Iterable[Quota],
    committed: Mapping[Account, int],
    url: str,
    secret: str | None = None,
) -> int:
    """One round: find what is due and deliver it."""
    now_s = time.time()
    return deliver(db, due(quotas, committed, now_s=now_s), webhook(url, secret), now_s=now_s)

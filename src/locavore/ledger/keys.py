"""Client keys: made, shown once, kept as fingerprints, rotated, revoked.

Workers never open this: `compiled` gives them the read-only table that calls are checked against.
"""

import re
import secrets
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import msgspec

from locavore.core.access import Grant, Quota, fingerprint, widened
from locavore.core.errors import RequestError
from locavore.ledger.periods import zone_of
from locavore.ledger.slices import limit_of
from locavore.ledger.sqlite import store_path, transaction, translated
from locavore.ledger.store import open_store

PREFIX = "lv-"
"""How our keys begin, so that secret scanners can be taught to find leaked ones."""
SECRET_BYTES = 32
HINT_CHARS = 3
"""How much of a key is kept in clear, to tell one's keys apart: 18 of 256 random bits."""
MOST = 10**15
"""The largest limit in any unit: what is counted stays within 64 bits."""
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
NOBODY = ""
"""Stands for a fingerprint; no secret has it."""
_decode = msgspec.msgpack.Decoder(Grant).decode


class KeyLine(msgspec.Struct, frozen=True, kw_only=True):
    """One key as lists show it: everything but the secret."""

    grant: Grant
    hint: str
    """How its newest secret begins."""
    created_s: float
    minted_by: str | None
    state: str
    """`active`, `expired` or `revoked`."""


class KeyStore:
    """The keys of one home. Open it, use it, close it: nothing is cached."""

    def __init__(
        self, home: Path, *, url: str | None = None, clock: Callable[[], float] = time.time
    ) -> None:
        """`url`: as for `ledger.store.open_store`."""
        self._path = store_path(home)
        self._db = open_store(home, url)
        self._clock = clock

    def close(self) -> None:
        self._db.close()

    def create(self, grant: Grant, *, minter: Grant | None = None) -> str:
        """Keep the grant and return its secret, which nobody can show again.

        Raises RequestError for a bad or taken name, a limit of zero or less, a grant that has
        expired already, or one that is wider than the `minter`'s own (None: the operator).
        """
        self._check(grant, minter)
        if minter is not None:
            grant = msgspec.structs.replace(grant, quotas=(*grant.quotas, *minter.quotas))
        with translated(self._path), transaction(self._db):
            self._still(minter)
            if self._row(grant.name) is not None:
                raise RequestError(f"a key named {grant.name!r} exists", code="name_taken")
            self._db.execute(
                "INSERT INTO keys VALUES (?, ?, ?, ?, NULL)",
                (
                    grant.name,
                    msgspec.msgpack.encode(grant),
                    minter.name if minter else None,
                    self._clock(),
                ),
            )
            return self._new_secret(grant.name)

    def _check(self, grant: Grant, minter: Grant | None) -> None:
        if not NAME.fullmatch(grant.name):
            raise RequestError(
                f"key name {grant.name!r}: use 1 to 64 letters, digits and . _ @ -", code="bad_name"
            )
        if grant.expired(self._clock()):
            raise RequestError(f"the expiry {grant.expires_s!r} has passed", code="expired")
        for quota in grant.quotas:
            if not _possible(quota) or (quota.scope, quota.name) != ("key", grant.name):
                raise RequestError(f"{quota!r} is no limit of key {grant.name!r}", code="bad_quota")
        wider = widened(grant, minter) if minter else []
        if wider:
            raise RequestError(
                f"key {minter.name if minter else ''!r} cannot make a wider one: "
                + "; ".join(wider),
                status=403,
                code="wider_key",
            )

    def rotate(self, name: str, *, grace_s: float = 0.0, by: Grant | None = None) -> str:
        """A new secret for the same key; the old ones work for `grace_s` seconds more.

        `by`: who asks; None: the operator. A key that may do more than `by` is not found (C103).
        """
        with translated(self._path), transaction(self._db):
            self._still(by)
            self._active(name, by)
            end_s = self._clock() + grace_s
            self._db.execute(
                "UPDATE secrets SET expires_s = ?"
                " WHERE name = ? AND (expires_s IS NULL OR expires_s > ?)",
                (end_s, name, end_s),
            )
            return self._new_secret(name)

    def revoke(self, name: str, *, by: Grant | None = None) -> None:
        """End the key, and every key it has minted, at the next compilation. `by`: see `rotate`."""
        with translated(self._path), transaction(self._db):
            self._still(by)
            self._active(name, by)
            self._db.execute(
                "WITH RECURSIVE family(name) AS (SELECT CAST(? AS TEXT) UNION"
                " SELECT keys.name FROM keys JOIN family ON minted_by = family.name)"
                " UPDATE keys SET revoked_s = coalesce(revoked_s, ?)"
                " WHERE name IN (SELECT name FROM family)",
                (name, self._clock()),
            )
            self._changed()

    def list(self, *, by: Grant | None = None) -> list[KeyLine]:
        """All keys ever made that `by` (None: the operator) may change, by name."""
        with translated(self._path):
            rows = self._db.execute(
                "SELECT body, hint, keys.created_s, minted_by, revoked_s"
                " FROM keys JOIN secrets USING (name) ORDER BY name, secrets.created_s"
            ).fetchall()
        newest = {row[0]: row for row in rows}
        lines = [self._line(*row) for row in newest.values()]
        return [line for line in lines if _within(line.grant, by)]

    def _line(
        self,
        body: bytes,
        hint: str,
        created_s: float,
        minted_by: str | None,
        revoked_s: float | None,
    ) -> KeyLine:
        grant = _decode(body)
        state = "expired" if grant.expired(self._clock()) else "active"
        return KeyLine(
            grant=grant,
            hint=hint,
            created_s=created_s,
            minted_by=minted_by,
            state="revoked" if revoked_s is not None else state,
        )

    def version(self) -> int:
        """Grows with each change; compile again when it does."""
        with translated(self._path):
            return int(self._db.execute("SELECT n FROM key_changes").fetchone()[0])

    def compiled(self) -> dict[str, Grant]:
        """Fingerprint -> grant, of every secret that is or will be good for something.

        A grant carries the earlier of the key's and the secret's expiry, so a worker that checks
        `Grant.expired` needs no other news for a rotation's grace to end.
        """
        with translated(self._path):
            rows = self._db.execute(
                "SELECT fingerprint, body, expires_s FROM secrets JOIN keys USING (name)"
                " WHERE revoked_s IS NULL"
            ).fetchall()
        grants = {print_: _until(_decode(body), expires_s) for print_, body, expires_s in rows}
        now_s = self._clock()
        return {print_: grant for print_, grant in grants.items() if not grant.expired(now_s)}

    def used(self) -> bool:
        """Whether a key was ever made, revoked and expired ones included."""
        with translated(self._path):
            return self._db.execute("SELECT 1 FROM keys LIMIT 1").fetchone() is not None

    def _row(self, name: str) -> tuple[float | None, bytes] | None:
        row: tuple[float | None, bytes] | None = self._db.execute(
            "SELECT revoked_s, body FROM keys WHERE name = ?", (name,)
        ).fetchone()
        return row

    def _still(self, by: Grant | None) -> None:
        """A worker hears of a revocation a moment late; the store knows at once."""
        row = None if by is None else self._row(by.name)
        if by is not None and row is not None and row[0] is not None:
            raise RequestError(f"the key {by.name!r} is revoked", status=403, code="revoked_key")

    def _active(self, name: str, by: Grant | None) -> None:
        row = self._row(name)
        if row is not None and not _within(_decode(row[1]), by):
            row = None
        if row is None or row[0] is not None:
            what = "no key" if row is None else "a revoked key"
            raise RequestError(f"{what} is named {name!r}", status=404, code="no_such_key")

    def _new_secret(self, name: str) -> str:
        secret = PREFIX + secrets.token_urlsafe(SECRET_BYTES)
        self._db.execute(
            "INSERT INTO secrets VALUES (?, ?, ?, ?, NULL)",
            (fingerprint(secret), name, secret[: len(PREFIX) + HINT_CHARS], self._clock()),
        )
        self._changed()
        return secret

    def _changed(self) -> None:
        self._db.execute("UPDATE key_changes SET n = n + 1")


def _until(grant: Grant, expires_s: float | None) -> Grant:
    if expires_s is None or (grant.expires_s is not None and grant.expires_s <= expires_s):
        return grant
    return msgspec.structs.replace(grant, expires_s=expires_s)


def _within(grant: Grant, by: Grant | None) -> bool:
    """Whether `by` could have made the key: nothing in it is wider, and it spends what `by` does.

    A rotation gives out a secret, so it must not reach further than making a key does.
    """
    if by is None:
        return True
    return not widened(grant, by) and set(by.quotas) <= set(grant.quotas)


def _possible(quota: Quota) -> bool:
    """Whether a worker can keep it: a worker that cannot would serve nobody."""
    if not quota.limit.is_finite() or not 0 <= quota.limit <= MOST:
        return False
    try:
        limit_of(quota)
        zone_of(quota.zone)
    except ValueError:
        return False
    return True


def compiled(home: Path, url: str | None = None) -> dict[str, Grant]:
    """`KeyStore.compiled` of a home, for whoever builds a snapshot."""
    with closing(KeyStore(home, url=url)) as store:
        return store.compiled()


def admitted(home: Path, url: str | None = None) -> dict[str, Grant]:
    """`compiled`, and never empty once a key was made: a gateway without any grant asks for no key,
    and the end of its last key must not open it to everybody."""
    with closing(KeyStore(home, url=url)) as store:
        grants = store.compiled()
        return (
            {NOBODY: Grant(name="nobody", expires_s=0.0)} if not grants and store.used() else grants
        )

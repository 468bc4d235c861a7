"""Who is calling: a client key becomes a grant, without the key being kept anywhere."""

import hashlib
import time
from collections.abc import Mapping

from locavore.core.access import Grant
from locavore.core.errors import Unauthorized


class KeyCheck:
    """Checks the credential of each call against the fingerprints of a snapshot.

    Fingerprints are looked up, not compared one by one: nothing that a caller can time depends on
    how much of a guess was right (C102).
    """

    def __init__(self, grants: Mapping[str, Grant], hosts: frozenset[bytes] = frozenset()) -> None:
        """`hosts`: `name:port` under which a gateway without keys is reached."""
        self._grants = grants
        self.hosts = hosts

    def same_site(self, origin: bytes) -> None:
        """Where no key is asked for, a page of another site must not spend through a visitor's
        browser. Raises Unauthorized."""
        if not self._grants and origin.partition(b"://")[2].lower() not in self.hosts:
            raise Unauthorized(
                f"a page from {origin.decode('latin-1')!r} may not call a gateway without a key; "
                "set LOCAVORE_KEY, or list its host in server.hosts",
                status=403,
                code="foreign_origin",
            )

    def grant(self, authorization: bytes | None, api_key: bytes | None) -> Grant | None:
        """What the caller may do; None when no keys are configured. Raises Unauthorized."""
        if not self._grants:
            return None
        given = api_key
        if authorization is not None and authorization[:7].lower() == b"bearer ":
            given = authorization[7:].strip()
        if not given:
            raise Unauthorized(
                "no key: send `Authorization: Bearer <key>` or `x-api-key: <key>`",
                code="missing_api_key",
            )
        found = self._grants.get(hashlib.blake2b(given, digest_size=16).hexdigest())
        if found is None:
            raise Unauthorized("this key is not known here", code="invalid_api_key")
        if found.expires_s is not None and found.expired(time.time()):
            raise Unauthorized(f"the key {found.name!r} has expired", code="expired_api_key")
        return found


def for_calls(grant: Grant | None) -> Grant | None:
    """The grant, unless it is one for administration only. Raises Unauthorized."""
    if grant is not None and grant.admin:
        raise Unauthorized(
            f"the key {grant.name!r} is for administration; model calls need a data key",
            status=403,
            code="admin_key",
        )
    return grant

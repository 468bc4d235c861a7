"""One labelled message taints the session that carries it until it is reset (C92).

A later turn repeats the earlier ones, so it carries their labels whether or not it names them.
"""

from typing import Protocol


class SessionLabels(Protocol):
    """Where labels of sessions are kept; raises StoreError when it cannot say."""

    def get(self, session: str) -> frozenset[str]: ...
    def add(self, session: str, labels: frozenset[str]) -> None: ...
    def reset(self, session: str) -> None: ...


def session_key(key_name: str | None, session: str) -> str:
    """A session belongs to the client key that opened it: names of others do not reach it."""
    return f"{key_name or ''}\n{session}"


def carried(store: SessionLabels, session: str | None) -> frozenset[str]:
    """Labels a call inherits. Raises StoreError: without an answer the call must not be served."""
    return store.get(session) if session is not None else frozenset()


def remember(store: SessionLabels, session: str | None, labels: frozenset[str]) -> None:
    """Keep a call's labels for the turns to come; before the first byte leaves."""
    if session is not None and labels:
        store.add(session, labels)

"""What the ledger asks of a database."""

from collections.abc import Iterable, Sequence
from typing import Any, Protocol


class Database(Protocol):
    """SQLite's own connection, or one that speaks like it.

    SQL is the common subset, with `?` for parameters. `BEGIN IMMEDIATE` begins the one writing
    transaction there can be at a time, `BEGIN` a reading one that sees a single state.
    """

    def execute(self, sql: str, parameters: Sequence[Any] = (), /) -> Any: ...
    def executemany(self, sql: str, parameters: Iterable[Sequence[Any]], /) -> Any: ...
    @property
    def in_transaction(self) -> bool: ...
    def close(self) -> None: ...

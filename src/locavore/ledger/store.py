"""Which database the ledger is kept in: a SQLite file, or PostgreSQL for several gateways."""

from pathlib import Path

from locavore.ledger.database import Database
from locavore.ledger.sqlite import connect, store_path


def open_store(home: Path, url: str | None = None) -> Database:
    """The ledger, migrated. `url`: `postgresql://...`, which needs the extra `locavore[postgres]`;
    None: a file under `home`. Raises StoreError when it cannot be used."""
    if url is None:
        return connect(store_path(home))
    from locavore.ledger.postgres import PostgresStore  # an optional dependency

    return PostgresStore(url)

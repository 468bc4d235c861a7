"""One server of each kind per session; a test that needs one that is not installed says so."""

from collections.abc import Iterator

import pytest

from tests.contracts.servers import Postgres, Valkey, postgres, postgres_bin, valkey, valkey_binary


@pytest.fixture(scope="session")
def valkey_server() -> Iterator[Valkey]:
    if valkey_binary() is None:
        pytest.skip("no valkey-server or redis-server here: apt install redis-server")
    with valkey() as server:
        yield server


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Postgres]:
    found = postgres_bin()
    if found is None:
        pytest.skip("no PostgreSQL here: apt install postgresql")
    with postgres(found) as server:
        yield server

"""What every test gets."""

import pytest


@pytest.fixture(scope="session")
def anyio_backend() -> tuple[str, dict[str, bool]]:
    """Async tests run on the loop the product runs on."""
    return "asyncio", {"use_uvloop": True}

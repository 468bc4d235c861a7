"""What every test gets."""

import pytest
from hypothesis import HealthCheck, settings

# A busy machine is no failure: nothing here measures time.
settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")


@pytest.fixture(scope="session")
def anyio_backend() -> tuple[str, dict[str, bool]]:
    """Async tests run on the loop the product runs on."""
    return "asyncio", {"use_uvloop": True}

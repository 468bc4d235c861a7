"""Telemetry, where the environment asks for it: the extra `locavore[otel]` is loaded only then."""

from collections.abc import Callable, Mapping
from typing import Protocol

from locavore.config import Config
from locavore.core.errors import ConfigError
from locavore.core.policy import Policy
from locavore.telemetry.settings import settings

Tell = Callable[[str], None]


class Telemetry(Protocol):
    """What runs beside a gateway."""

    def energy(self, used: Mapping[str, int]) -> None:
        """Joules by meter, since the last time."""
        ...

    def stop(self) -> None:
        """After the ledger was closed."""
        ...


def telemetry(
    config: Config, policy: Callable[[], Policy], *, env: Mapping[str, str], tell: Tell
) -> Telemetry | None:
    """None: off. Raises ConfigError when what was asked for cannot be done."""
    found = settings(env)
    if found is None:
        return None
    try:
        from locavore.telemetry import export
    except ModuleNotFoundError as error:
        raise ConfigError(
            [
                "OTEL_EXPORTER_OTLP_ENDPOINT asks for telemetry, which needs "
                f"`pip install 'locavore[otel]'`, in a checkout `pip install -e '.[otel]'` "
                f"({error.name} is missing); OTEL_SDK_DISABLED=true "
                "turns it off"
            ]
        ) from None
    told = export.Telemetry(config.home, found, policy, url=config.ledger.url, env=env, tell=tell)
    told.start()
    return told

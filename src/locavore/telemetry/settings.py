"""Whether, where and how telemetry is sent, from the standard OTEL_* variables.

Headers, time-outs, certificates, compression, resource attributes, sampler and intervals are read
by the SDK itself; here stand the questions that Locavore must answer.
"""

from collections.abc import Mapping
from urllib.parse import urlsplit

import msgspec

from locavore.core.backend import Place, place_of_host
from locavore.core.errors import ConfigError

PROTOCOL = "http/protobuf"
SIGNALS = ("TRACES", "METRICS")
PLACE = "LOCAVORE_TELEMETRY_PLACE"
"""How far the collector is, where its address does not tell: a place's name."""


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    traces: bool
    metrics: bool
    place: Place
    """Of the farthest endpoint."""
    direct: bool
    """No proxy of the environment stands between: it could lead anywhere."""


def settings(env: Mapping[str, str]) -> Settings | None:
    """None: telemetry is off. Raises ConfigError for a variable that cannot be followed."""
    if _true(env.get("OTEL_SDK_DISABLED")):
        return None
    endpoints = {signal: _endpoint(env, signal) for signal in SIGNALS}
    known = {signal: url for signal, url in endpoints.items() if url}
    if not known:
        return None
    place = max(_place(env, url) for url in known.values())
    return Settings(
        traces="TRACES" in known,
        metrics="METRICS" in known,
        place=place,
        direct=place <= Place.ON_PREM,
    )


def _endpoint(env: Mapping[str, str], signal: str) -> str | None:
    if env.get(f"OTEL_{signal}_EXPORTER", "otlp").strip() != "otlp":
        return None
    name = f"OTEL_EXPORTER_OTLP_{signal}_ENDPOINT"
    url = env.get(name) or env.get("OTEL_EXPORTER_OTLP_ENDPOINT")
    if not url:
        return None
    if urlsplit(url).scheme not in ("http", "https"):
        raise ConfigError([f"{name} or OTEL_EXPORTER_OTLP_ENDPOINT: http or https, got {url!r}"])
    general = env.get("OTEL_EXPORTER_OTLP_PROTOCOL", PROTOCOL)
    protocol = env.get(f"OTEL_EXPORTER_OTLP_{signal}_PROTOCOL", general)
    if protocol != PROTOCOL:
        raise ConfigError([f"OTEL_EXPORTER_OTLP_PROTOCOL: only {PROTOCOL}, got {protocol!r}"])
    return url


def _place(env: Mapping[str, str], url: str) -> Place:
    named = env.get(PLACE)
    if named:
        found = [place for place in Place if place.label == named]
        if not found:
            names = ", ".join(place.label for place in Place)
            raise ConfigError([f"{PLACE}: one of {names}, got {named!r}"])
        return found[0]
    host = urlsplit(url).hostname or ""
    if host in ("localhost", "::1") or host.startswith("127."):
        return Place.EMBEDDED  # this machine, as the ledger itself
    return place_of_host(host)


def _true(text: str | None) -> bool:
    return (text or "").strip().lower() == "true"

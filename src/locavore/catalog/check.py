"""What in the catalog is stale, unsourced or at odds with itself."""

import datetime
from collections.abc import Iterator
from typing import Any

import msgspec

from locavore.catalog.load import Catalog
from locavore.catalog.schema import Figure, Hardware, Rate, Record

STALE_DAYS: dict[str, int] = {"rates": 270, "hardware": 365, "models": 730, "scores": 730}
"""Age at which a figure should be read again; prices move faster than shapes."""
_ASSUMED = "locavore-default"


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One thing to look at."""

    kind: str
    """`stale`, `assumed` (a default without a published source) or `incomplete`."""
    record: str
    field: str
    text: str


def check(catalog: Catalog, *, today: datetime.date) -> list[Finding]:
    """Everything stale on `today`, assumed or missing; the files' syntax is checked at load."""
    found = list(_stale(catalog, today))
    found += _assumed(catalog)
    found += _incomplete(catalog)
    return found


def _stale(catalog: Catalog, today: datetime.date) -> Iterator[Finding]:
    groups: list[tuple[str, dict[str, Any]]] = [
        ("rates", catalog.rates),
        ("hardware", catalog.hardware),
        ("models", catalog.models),
    ]
    for kind, records in groups:
        for name, record in records.items():
            for field, as_of in _dates(record, ""):
                age = (today - as_of).days
                if age > STALE_DAYS[kind]:
                    text = f"as of {as_of}, {age} days old; read the source again"
                    yield Finding(kind="stale", record=f"{kind}/{name}", field=field, text=text)


def _dates(record: Any, path: str) -> Iterator[tuple[str, datetime.date]]:
    """(field, date) of every dated thing inside a record."""
    if isinstance(record, Record):
        as_of = getattr(record, "as_of", None)
        if as_of is not None:
            yield path or "record", as_of
        for name in record.__struct_fields__:
            yield from _dates(getattr(record, name), f"{path}.{name}".lstrip("."))
    elif isinstance(record, tuple):
        for item in record:
            yield from _dates(item, path)


def _assumed(catalog: Catalog) -> Iterator[Finding]:
    for name, rate in catalog.rates.items():
        if rate.figure.source == _ASSUMED:
            yield Finding(
                kind="assumed",
                record=f"rates/{name}",
                field="figure",
                text=f"{_plain(rate)} is a default without a published source",
            )


def _plain(rate: Rate) -> str:
    return f"{rate.figure.value:g} {rate.figure.unit}"


def _incomplete(catalog: Catalog) -> Iterator[Finding]:
    for name, model in catalog.models.items():
        if model.shape is None:
            text = "no shape: memory and speed are refused"
            yield Finding(kind="incomplete", record=f"models/{name}", field="shape", text=text)
        if model.license not in catalog.licenses:
            text = f"license {model.license!r} has no record"
            yield Finding(kind="incomplete", record=f"models/{name}", field="license", text=text)
    for name, device in catalog.hardware.items():
        for field in missing(device):
            text = f"no {field}: whatever needs it is left out"
            yield Finding(kind="incomplete", record=f"hardware/{name}", field=field, text=text)


def missing(device: Hardware) -> list[str]:
    """Figures of a device that planning uses and nobody has filled in."""
    wanted: dict[str, Figure | None] = {
        "bandwidth_gbs": device.bandwidth_gbs,
        "fp16_tflops": device.fp16_tflops,
        "price_usd": device.price_usd,
        "power.load_w": device.power.load_w or device.power.tdp_w,
    }
    return [name for name, figure in wanted.items() if figure is None]

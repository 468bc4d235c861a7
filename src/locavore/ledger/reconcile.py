"""The ledger against a provider's own usage export, day by day and model by model.

A provider's file is read through a small column mapping, which is known for the cost exports of
OpenAI and Anthropic; every difference gets its likely reason
from what the ledger knows: unknown costs, estimates, broken answers, other token counts, another
price.
"""

import csv
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation
from typing import Any, TextIO

import msgspec

from locavore.ledger.database import Database
from locavore.ledger.rows import usd_of
from locavore.ledger.sums import DAY_S

FIELDS = ("day", "model", "usd", "input", "output", "currency")
"""What a mapping may name; `day`, `model` and `usd` it must."""
REQUIRED = ("day", "model", "usd")
KNOWN = (
    {
        "day": "start_time",
        "model": "line_item",
        "usd": "amount_value",
        "currency": "amount_currency",
    },
    {"day": "usage_date_utc", "model": "model", "usd": "cost_usd"},
)
"""Cost exports of OpenAI's dashboard (a row per line item: `gpt-x, input`) and of Anthropic's
console (a row per model, by its display name, and kind of token), as of September 2026."""
ALL_MODELS = "all models"
"""Where the export is by day only."""
CENT = Decimal("0.01")
_SNAPSHOT = re.compile(r"-(\d{4}-\d{2}-\d{2}|\d{8})$")
Key = tuple[int, str]
"""Days since 1970, model without the date of its snapshot."""


class Billed(msgspec.Struct):
    """One day of one model on the provider's side."""

    usd: Decimal = Decimal(0)
    input_tokens: int | None = None
    output_tokens: int | None = None


class Booked(msgspec.Struct):
    """The same in the ledger."""

    usd: Decimal
    attempts: int
    unknown: int
    estimated: int
    missing: int
    input_tokens: int
    output_tokens: int


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    day: str
    model: str
    billed_usd: Decimal | None
    booked_usd: Decimal | None
    reasons: tuple[str, ...]

    @property
    def usd(self) -> Decimal:
        """What the provider charges beyond what the ledger has."""
        return (self.billed_usd or Decimal(0)) - (self.booked_usd or Decimal(0))


class Reconciliation(msgspec.Struct, frozen=True, kw_only=True):
    matched: int
    """Pairs of day and model that agree."""
    billed_usd: Decimal
    booked_usd: Decimal
    differences: tuple[Difference, ...]


def mapping_of(text: str) -> dict[str, str]:
    """`day=date,model=model,usd=cost` -> field to column. Raises ValueError."""
    pairs = [part.partition("=") for part in text.split(",")]
    mapping = {field.strip(): column.strip() for field, _, column in pairs}
    if unknown := mapping.keys() - set(FIELDS):
        raise ValueError(f"unknown field {sorted(unknown)[0]!r}; known are {', '.join(FIELDS)}")
    if missing := [field for field in REQUIRED if not mapping.get(field)]:
        raise ValueError(f"no column given for {', '.join(missing)}: write {missing[0]}=COLUMN")
    return mapping


def read_invoice(file: TextIO, mapping: Mapping[str, str] | None = None) -> dict[Key, Billed]:
    """Rows of the provider's CSV, summed. Raises ValueError naming the line and the value.

    `mapping`: None for an export whose columns are known.
    """
    found: dict[Key, Billed] = {}
    reader = csv.DictReader(file)
    names = reader.fieldnames or ()
    if mapping is None:
        mapping = next((known for known in KNOWN if set(known.values()) <= set(names)), None)
        if mapping is None:
            raise ValueError(f"no export that is known; name its columns: {', '.join(names)}")
    if absent := set(mapping.values()) - set(names):
        raise ValueError(f"the file has no column {sorted(absent)[0]!r}; it has {', '.join(names)}")
    for row in reader:
        if not (row[mapping["usd"]] or "").strip():
            continue  # OpenAI writes a row for a day on which nothing was used
        try:
            _add_row(found, row, mapping)
        except (ValueError, InvalidOperation) as error:
            raise ValueError(f"line {reader.line_num}: {error}; the row is {row!r}") from error
    return found


def _add_row(found: dict[Key, Billed], row: Mapping[str, str], mapping: Mapping[str, str]) -> None:
    if "currency" in mapping and row[mapping["currency"]].lower() != "usd":
        raise ValueError(f"only US dollars, not {row[mapping['currency']]!r}")
    key = (_day(row[mapping["day"]]), model_of(row[mapping["model"]]) or ALL_MODELS)
    billed = found.setdefault(key, Billed())
    billed.usd += Decimal(row[mapping["usd"]].lstrip("$"))
    for field in ("input", "output"):
        if field in mapping:
            name = f"{field}_tokens"
            setattr(billed, name, int(row[mapping[field]]) + (getattr(billed, name) or 0))


def model_of(name: str) -> str:
    """The model as an API calls it, without the date of its snapshot: providers bill
    `gpt-x-2026-01-31, input` and `Claude Haiku 4.5`."""
    plain = name.partition(",")[0].strip().lower()
    if " " in plain:
        plain = plain.replace(" ", "-").replace(".", "-")
    return _SNAPSHOT.sub("", plain)


def _day(text: str) -> int:
    """An ISO date or time, or Unix seconds, as days since 1970 UTC."""
    text = text.strip()
    if text.isdigit():
        return int(text) // DAY_S
    moment = datetime.fromisoformat(text)
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return int(moment.timestamp()) // DAY_S


def booked(db: Database, provider: str, days: Iterable[int]) -> dict[Key, Booked]:
    """The ledger's side, for the days that the invoice covers."""
    days = list(days)
    if not days:
        return {}
    sql = (
        "SELECT a.started_ms / 86400000, model, count(*), sum(CASE WHEN cost_pico IS NULL THEN 1"
        " ELSE 0 END), sum(estimated), sum(CASE WHEN input_tokens IS NULL AND output_tokens IS NULL"
        " AND coalesce(status, 0) < 400 THEN 1 ELSE 0 END), coalesce(sum(input_tokens), 0),"
        " coalesce(sum(output_tokens), 0), coalesce(sum(cost_pico / 1000000), 0),"
        " coalesce(sum(cost_pico % 1000000), 0) FROM attempts a"
        " WHERE provider = ? AND started_ms >= ? AND started_ms < ? GROUP BY 1, 2"
    )
    span = (min(days) * DAY_S * 1000, (max(days) + 1) * DAY_S * 1000)
    found: dict[Key, Booked] = {}
    for day, model, *sums in db.execute(sql, (provider, *span)):
        attempts, unknown, estimated, missing, given, out, micro, rest = map(int, sums)
        line = Booked(
            usd_of(micro * 10**6 + rest), attempts, unknown, estimated, missing, given, out
        )
        key = (day, model_of(model))
        found[key] = _added(found[key], line) if key in found else line
    return found


def _by_day(lines: Mapping[Key, Booked]) -> dict[Key, Booked]:
    found: dict[Key, Booked] = {}
    for (day, _), line in lines.items():
        key = (day, ALL_MODELS)
        found[key] = _added(found[key], line) if key in found else line
    return found


def _added(a: Booked, b: Booked) -> Booked:
    pairs = zip(msgspec.structs.astuple(a), msgspec.structs.astuple(b), strict=True)
    sums: list[Any] = [x + y for x, y in pairs]
    return Booked(*sums)


def reconcile(
    db: Database, provider: str, invoice: Mapping[Key, Billed], *, tolerance_usd: Decimal = CENT
) -> Reconciliation:
    """Compare; a pair that differs by no more than the tolerance agrees."""
    ours = booked(db, provider, [day for day, _ in invoice])
    if invoice and all(model == ALL_MODELS for _, model in invoice):
        ours = _by_day(ours)
    differences, matched = [], 0
    for key in sorted({*invoice, *ours}):
        theirs, mine = invoice.get(key), ours.get(key)
        gap = (theirs.usd if theirs else Decimal(0)) - (mine.usd if mine else Decimal(0))
        if theirs and mine and abs(gap) <= tolerance_usd:
            matched += 1
            continue
        differences.append(
            Difference(
                day=date.fromordinal(key[0] + date(1970, 1, 1).toordinal()).isoformat(),
                model=key[1],
                billed_usd=theirs.usd if theirs else None,
                booked_usd=mine.usd if mine else None,
                reasons=tuple(_reasons(theirs, mine)),
            )
        )
    return Reconciliation(
        matched=matched,
        billed_usd=sum((line.usd for line in invoice.values()), Decimal(0)),
        booked_usd=sum((line.usd for line in ours.values()), Decimal(0)),
        differences=tuple(differences),
    )


def _reasons(theirs: Billed | None, mine: Booked | None) -> list[str]:
    if mine is None:
        return ["not in the ledger: the provider's key was used elsewhere, or on another day"]
    if theirs is None:
        return ["not on the invoice: billed on another day, under another name, or not at all"]
    found = []
    if mine.unknown:
        found.append(f"{mine.unknown} attempts of unknown cost are in no sum of ours")
    if mine.missing:
        found.append(f"{mine.missing} attempts broke off without token counts")
    if mine.estimated:
        found.append(f"{mine.estimated} attempts are counted with our own estimate")
    same_tokens = True
    for kind in ("input", "output"):
        billed, booked_ = getattr(theirs, f"{kind}_tokens"), getattr(mine, f"{kind}_tokens")
        if billed is not None and billed != booked_:
            same_tokens = False
            found.append(f"{kind} tokens: billed {billed:,}, booked {booked_:,}")
    if same_tokens and theirs.input_tokens is not None and mine.usd:
        found.append(f"the same tokens at {theirs.usd / mine.usd:.4f} times our price")
    return found or ["the invoice gives no token counts to tell more: map `input` and `output`"]

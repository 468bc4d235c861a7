"""The FOCUS export against what the specification says of each column (version 1.2)."""

import contextlib
import csv
import io
import json
import re
from decimal import Decimal
from pathlib import Path

import pytest

from locavore.ledger.focus import COLUMNS, write_focus
from locavore.ledger.journal import SegmentJournal
from locavore.ledger.query import open_current
from tests.ledger.records import attempt, call, usd

MANDATORY = {
    "BilledCost", "BillingAccountId", "BillingAccountName", "BillingCurrency", "BillingPeriodEnd",
    "BillingPeriodStart", "ChargeCategory", "ChargeClass", "ChargeDescription", "ChargePeriodEnd",
    "ChargePeriodStart", "ContractedCost", "EffectiveCost", "InvoiceIssuerName", "ListCost",
    "PricingQuantity", "PricingUnit", "ProviderName", "PublisherName", "ServiceCategory",
    "ServiceName", "ServiceSubcategory",
}  # fmt: skip
"""Feature level "Mandatory" (ServiceSubcategory: recommended in 1.2, mandatory later)."""
NULLABLE = {"BillingAccountName", "ChargeClass", "SubAccountId", "SubAccountName", "SubAccountType"}
"""The others must not be null in a row of usage."""
DECIMALS = {
    "BilledCost", "ConsumedQuantity", "ContractedCost", "EffectiveCost", "ListCost",
    "PricingQuantity",
}  # fmt: skip
ALLOWED = {
    "ChargeCategory": {"Usage", "Purchase", "Tax", "Credit", "Adjustment"},
    "ChargeClass": {"", "Correction"},
    "ChargeFrequency": {"One-Time", "Recurring", "Usage-Based"},
    "PricingCategory": {"Standard", "Dynamic", "Committed", "Other"},
    "ServiceCategory": {"AI and Machine Learning"},
    "ServiceSubcategory": {"Generative AI", "Other (AI and Machine Learning)"},
}
DATE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")


@pytest.fixture
def rows(tmp_path: Path) -> list[dict[str, str]]:
    journal = SegmentJournal(tmp_path)
    journal.append(call("a", attempt(), tenant="acme", team="web", key_name="k"))
    journal.append(call("b", attempt(backend="openai/m", provider="openai", cost=usd("0.5"))))
    journal.close()
    out = io.StringIO()
    with contextlib.closing(open_current(tmp_path)) as db:
        assert write_focus(db, out) == 2
    return list(csv.DictReader(io.StringIO(out.getvalue())))


def test_every_mandatory_column_is_there_and_in_order() -> None:
    assert set(COLUMNS) >= MANDATORY
    assert list(COLUMNS) == sorted(COLUMNS)


def test_types_nulls_and_allowed_values_are_those_of_the_specification(
    rows: list[dict[str, str]],
) -> None:
    for row in rows:
        assert {name for name, value in row.items() if not value} <= NULLABLE
        for name in DECIMALS:
            assert Decimal(row[name]) >= 0
            assert "E" not in row[name]
        for name, values in ALLOWED.items():
            assert row[name] in values
        for name in (
            "BillingPeriodStart",
            "BillingPeriodEnd",
            "ChargePeriodStart",
            "ChargePeriodEnd",
        ):
            assert DATE.fullmatch(row[name])
        assert row["BillingPeriodStart"] <= row["ChargePeriodStart"]
        assert row["ChargePeriodEnd"] <= row["BillingPeriodEnd"]
        assert re.fullmatch(r"[A-Z]{3}", row["BillingCurrency"])
        tags = json.loads(row["Tags"])
        assert all(name.startswith("locavore:") for name in tags)
        # A type without an id, or an id without a type, is against the specification.
        assert bool(row["SubAccountId"]) == bool(row["SubAccountType"])


def test_the_sum_is_that_of_the_ledger(rows: list[dict[str, str]]) -> None:
    assert sum(Decimal(row["BilledCost"]) for row in rows) == Decimal("0.500125")

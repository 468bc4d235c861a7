"""The ledger as a FOCUS cost and usage table (FinOps Open Cost and Usage Specification 1.2).

One row per day, tenant, team, key and backend. Columns that have no meaning here are empty, which
is null. Source of names, types and nullability: `specification/columns` of the specification's
repository (FinOps-Open-Cost-and-Usage-Spec/FOCUS_Spec).
"""

import csv
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, TextIO

from locavore.ledger.database import Database
from locavore.ledger.rows import usd_of
from locavore.ledger.sums import DAY_S

COLUMNS = (
    "BilledCost",
    "BillingAccountId",
    "BillingAccountName",
    "BillingAccountType",
    "BillingCurrency",
    "BillingPeriodEnd",
    "BillingPeriodStart",
    "ChargeCategory",
    "ChargeClass",
    "ChargeDescription",
    "ChargeFrequency",
    "ChargePeriodEnd",
    "ChargePeriodStart",
    "ConsumedQuantity",
    "ConsumedUnit",
    "ContractedCost",
    "EffectiveCost",
    "InvoiceIssuerName",
    "ListCost",
    "PricingCategory",
    "PricingQuantity",
    "PricingUnit",
    "ProviderName",
    "PublisherName",
    "ResourceId",
    "ResourceName",
    "ResourceType",
    "ServiceCategory",
    "ServiceName",
    "ServiceSubcategory",
    "SkuId",
    "SkuPriceId",
    "SubAccountId",
    "SubAccountName",
    "SubAccountType",
    "Tags",
)
_QUERY = (
    "SELECT bucket, tenant, team, key, backend, provider, place, sum(attempts), sum(unknown_cost),"
    " sum(input_tokens), sum(output_tokens), sum(cost_pico) FROM sums"
    " WHERE span_s = ? AND bucket >= ? AND backend <> ''"
    " GROUP BY bucket, tenant, team, key, backend, provider, place"
    " ORDER BY bucket, tenant, team, key, backend, provider, place"
)


def write_focus(db: Database, out: TextIO, *, since_s: float = 0.0) -> int:
    """Write the CSV from the UTC day of `since_s` on; how many rows."""
    writer = csv.DictWriter(out, COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()
    count = 0
    for row in _rows(db, int(since_s) // DAY_S):
        writer.writerow(row)
        count += 1
    return count


def _rows(db: Database, since_day: int) -> Iterator[dict[str, Any]]:
    for row in db.execute(_QUERY, (DAY_S, since_day)):
        yield _row(*row)


def _row(
    day: int,
    tenant: str,
    team: str,
    key: str,
    backend: str,
    provider: str,
    place: str,
    attempts: int,
    unknown: int,
    input_tokens: int,
    output_tokens: int,
    pico: int,
) -> dict[str, Any]:
    cost = f"{usd_of(int(pico)):f}"
    begin = datetime.fromtimestamp(day * DAY_S, UTC)
    month = begin.replace(day=1)
    next_month = month.replace(year=month.year + month.month // 12, month=month.month % 12 + 1)
    tokens = int(input_tokens) + int(output_tokens)
    tags = {
        "locavore:key": key,
        "locavore:place": place,
        "locavore:attempts": str(attempts),
        "locavore:input_tokens": str(input_tokens),
        "locavore:output_tokens": str(output_tokens),
        # FOCUS knows no unknown cost: such attempts are in no amount of this row.
        "locavore:attempts_of_unknown_cost": str(unknown),
    }
    return {
        "BilledCost": cost,
        "BillingAccountId": tenant or "default",
        "BillingAccountType": "Tenant",
        "BillingCurrency": "USD",
        "BillingPeriodStart": _iso(month),
        "BillingPeriodEnd": _iso(next_month),
        "ChargeCategory": "Usage",
        "ChargeDescription": f"model calls to {backend}",
        "ChargeFrequency": "Usage-Based",
        "ChargePeriodStart": _iso(begin),
        "ChargePeriodEnd": _iso(datetime.fromtimestamp((day + 1) * DAY_S, UTC)),
        "ConsumedQuantity": tokens,
        "ConsumedUnit": "Tokens",
        "ContractedCost": cost,
        "EffectiveCost": cost,
        "InvoiceIssuerName": provider,
        "ListCost": cost,
        "PricingCategory": "Standard",
        "PricingQuantity": tokens,
        "PricingUnit": "Tokens",
        "ProviderName": provider,
        "PublisherName": provider,
        "ResourceId": backend,
        "ResourceName": backend,
        "ResourceType": "Model",
        "ServiceCategory": "AI and Machine Learning",
        "ServiceName": "Model inference",
        "ServiceSubcategory": "Generative AI",
        "SkuId": backend,
        "SkuPriceId": backend,
        "SubAccountId": team,
        "SubAccountType": "Team" if team else "",
        "Tags": json.dumps(tags, ensure_ascii=False),
    }


def _iso(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")

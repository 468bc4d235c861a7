"""What one key of the file cannot know of another: duplicates, loops, rules that change nothing."""

import base64
import importlib.util
import re
import zoneinfo
from collections.abc import Iterable, Mapping
from decimal import Decimal
from urllib.parse import urlsplit

from locavore.config.policy import labels_of, require_of, rule_of
from locavore.config.reading import Reader, nearest
from locavore.config.schema import (
    BackendTable,
    BudgetTable,
    File,
    LedgerTable,
    MachineTable,
    RequireTable,
    RuleTable,
)
from locavore.core.backend import Capability
from locavore.core.policy import Require, Rule
from locavore.routing.facts import TASKS
from locavore.routing.names import alias_loop
from locavore.routing.rules import covers

_STORES: dict[str, tuple[tuple[str, ...], str, str]] = {
    "url": (("postgresql", "postgres"), "asyncpg", "postgres"),
    "limits_url": (("redis", "rediss", "unix"), "redis", "valkey"),
    "alert_webhook": (("https", "http"), "", ""),
}
"""Key -> schemes, module that speaks it, extra that installs it."""


def cross_check(file: File, reader: Reader) -> None:
    ids = [b.id for b in file.backend]
    _check_backends(file.backend, reader)
    _check_budgets(file.budget, reader)
    _check_ledger(file.ledger, reader)
    if file.machine is not None:
        _check_machine(file.machine, file.ledger, reader)
    if file.baseline is not None and "/" not in file.baseline:
        reader.problem("baseline", f"expected `provider/model`, got {file.baseline!r}")
    _check_aliases(file.alias, ids, reader)
    labels = labels_of(file)
    for label in sorted(labels):
        if not _LABEL.fullmatch(label):
            reader.problem("labels", f"expected letters, digits, `_`, `.` and `-`, got {label!r}")
    for index, rule in enumerate(file.rule):
        _check_rule(rule, f"rule[{index}]", labels, file, reader)
    _check_require(file.limits, "limits", reader)
    _check_shadows(file, reader)


def _check_budgets(budgets: tuple[BudgetTable, ...], reader: Reader) -> None:
    for index, budget in enumerate(budgets):
        at = f"budget[{index}]"
        if budget.limit < 0:
            reader.problem(f"{at}.limit", f"expected 0 or more, got {budget.limit}")
        if budget.unit == "concurrent" and budget.period != "total":
            what = f'calls at a time have no period: write "total", got {budget.period!r}'
            reader.problem(f"{at}.period", what)
        _check_zone(budget.zone, f"{at}.zone", reader)


def _check_zone(zone: str, at: str, reader: Reader) -> None:
    try:
        zoneinfo.ZoneInfo(zone)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError):
        reader.problem(at, f"no IANA time zone is called {zone!r}")


def _check_machine(machine: MachineTable, ledger: LedgerTable, reader: Reader) -> None:
    if len(machine.kwh_usd) not in (1, 24):
        what = f"expected 1 or 24 prices, got {len(machine.kwh_usd)}"
        reader.problem("machine.kwh_usd", what)
    if min(machine.kwh_usd, default=Decimal(0)) < 0:
        reader.problem("machine.kwh_usd", f"expected 0 or more, got {min(machine.kwh_usd)}")
    if machine.years <= 0:
        reader.problem("machine.years", f"expected more than 0, got {machine.years}")
    if not 0 <= machine.residual_usd <= machine.price_usd:
        what = f"expected 0 to price_usd, got {machine.residual_usd}"
        reader.problem("machine.residual_usd", what)
    if (machine.idle_w is None) != (machine.busy_w is None):
        reader.problem("machine.idle_w", "expected with busy_w, or neither")
    if ledger.url is not None:
        what = "one ledger of several machines tells no machine's use: set `price` by backend"
        reader.problem("machine", what)
    _check_zone(machine.zone, "machine.zone", reader)


def _check_ledger(ledger: LedgerTable, reader: Reader) -> None:
    for name, (schemes, module, extra) in _STORES.items():
        url = getattr(ledger, name)
        if url is None:
            continue
        scheme = url.partition("://")[0]
        if scheme not in schemes:
            what = f"expected {', '.join(f'{s}://...' for s in schemes)}"
            reader.problem(f"ledger.{name}", f"{what}, got a secret of another form")
        elif module and importlib.util.find_spec(module) is None:
            what = f"needs `pip install 'locavore[{extra}]'` (in a checkout: -e '.[{extra}]')"
            reader.problem(f"ledger.{name}", what)
    if ledger.alert_secret is not None and not _is_webhook_secret(ledger.alert_secret):
        reader.problem("ledger.alert_secret", "expected Base64 after whsec_, got something else")
    if ledger.nodes > 1 and ledger.limits_url is None:
        what = f"{ledger.nodes} gateways share no limits: set limits_url, or leave nodes out"
        reader.problem("ledger.nodes", what)


def _is_webhook_secret(secret: str) -> bool:
    if not secret.startswith("whsec_"):
        return True
    try:
        return bool(base64.b64decode(secret.removeprefix("whsec_"), validate=True))
    except ValueError:
        return False


def _check_backends(backends: tuple[BackendTable, ...], reader: Reader) -> None:
    seen: set[str] = set()
    for index, backend in enumerate(backends):
        at = f"backend[{index}]"
        provider, _, model = backend.id.partition("/")
        if not provider or not model:
            reader.problem(f"{at}.id", f"expected `provider/model`, got {backend.id!r}")
        if backend.id in seen:
            reader.problem(f"{at}.id", f"{backend.id!r} is defined twice; rename one")
        seen.add(backend.id)
        if backend.url is not None and not _is_url(backend.url):
            reader.problem(f"{at}.url", f"expected http(s)://host/..., got {backend.url!r}")
        for name in ("capabilities", "lacks"):
            _check_names(getattr(backend, name), _CAPABILITIES, f"{at}.{name}", reader)
        for both in sorted(set(backend.capabilities) & set(backend.lacks)):
            reader.problem(f"{at}.lacks", f"{both!r} is also in capabilities; remove one")


_LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_CAPABILITIES = [c.value for c in Capability]


def _is_url(text: str) -> bool:
    try:
        parts = urlsplit(text)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def _check_names(names: Iterable[str], known: list[str], key: str, reader: Reader) -> None:
    for name in names:
        if name not in known:
            reader.problem(key, f"unknown {name!r}{nearest(name, known)}")


def _check_aliases(aliases: Mapping[str, str], ids: list[str], reader: Reader) -> None:
    for name in aliases:
        if name in ids:
            reader.problem(f"alias.{name}", "never used: a backend has this id; rename the alias")
        loop = alias_loop(name, aliases)
        if loop:
            reader.problem(f"alias.{name}", "leads back to itself: " + " -> ".join(loop))


def _check_rule(
    rule: RuleTable, at: str, labels: frozenset[str], file: File, reader: Reader
) -> None:
    known = sorted(labels)
    if rule.when.label is not None:
        _check_names([rule.when.label], known, f"{at}.when.label", reader)
    _check_names(rule.set_labels, known, f"{at}.set_labels", reader)
    if rule.when.task is not None:
        _check_names([rule.when.task], sorted(TASKS), f"{at}.when.task", reader)
    if rule.require == RequireTable() and not rule.set_labels:
        reader.problem(at, f"rule {rule.name!r} neither requires nor labels anything; remove it")
    if any(other is not rule and other.name == rule.name for other in file.rule):
        reader.problem(f"{at}.name", f"{rule.name!r} names two rules; rename one")
    _check_require(rule.require, f"{at}.require", reader)


def _check_require(require: RequireTable, at: str, reader: Reader) -> None:
    _check_names(require.capabilities, _CAPABILITIES, f"{at}.capabilities", reader)
    for name in ("backends", "jurisdictions"):
        if getattr(require, name) == ():
            reader.problem(f"{at}.{name}", "an empty list allows nothing; remove it")
    if require.max_cost_usd is not None and require.max_cost_usd < 0:
        reader.problem(f"{at}.max_cost_usd", f"expected 0 or more, got {require.max_cost_usd}")


def _check_shadows(file: File, reader: Reader) -> None:
    """A rule that an earlier one (or `limits`) already covers can never change a decision."""
    rules = [Rule(name="limits", require=require_of(file.limits)), *map(rule_of, file.rule)]
    for index, rule in enumerate(rules[1:], 1):
        by = next((r for r in rules[:index] if covers(r, rule)), None)
        if by is not None and (rule.set_labels or rule.require != Require()):
            reader.problem(
                f"rule[{index - 1}]",
                f"rule {rule.name!r} never changes anything: {by.name!r} already requires as much "
                "of every call it matches; remove it",
            )

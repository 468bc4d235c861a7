"""Names the policy speaks of that nothing answers to, found once it is known what there is.

The configuration alone cannot tell: backends are also found at start. Each is told and none stops
the start, because what is away now may be there in a minute.
"""

from locavore.core.errors import RequestError
from locavore.core.policy import Policy, Require
from locavore.routing.names import Names


def loose_ends(policy: Policy, names: Names) -> list[str]:
    """One line per name that leads nowhere now, saying what follows from it."""
    found = []
    if policy.baseline is not None and not _leads(policy.baseline, names):
        found.append(
            f"baseline {policy.baseline!r} cannot be reached: `auto` goes where the decision says, "
            "and savings cannot be told"
        )
    for alias, target in policy.aliases.items():
        if not _leads(target, names):
            found.append(f"alias {alias!r} leads to {target!r}, which nothing serves: a 404")
    for id_, others in policy.fallbacks.items():
        found += [
            f"fallback {name!r} of {id_!r} is served by nothing and is passed over"
            for name in others
            if not _leads(name, names)
        ]
    for rule in policy.rules:
        if rule.when.model is not None and not _leads(rule.when.model, names):
            found.append(f"rule {rule.name!r} waits for {rule.when.model!r}, which nothing serves")
        found += _listed(f"rule {rule.name!r}", rule.require, names)
    return found + _listed("limits", policy.limits, names)


def _listed(where: str, require: Require, names: Names) -> list[str]:
    return [
        f"{where} allows backend {name!r}, which is not there"
        for name in sorted(require.backends or ())
        if not _leads(name, names)
    ]


def _leads(name: str, names: Names) -> bool:
    try:
        return bool(names.resolve(name).backends)
    except RequestError:
        return False

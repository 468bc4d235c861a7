"""Rules, limits and the posture of a file, as the policy that routing reads."""

import hashlib

import msgspec

from locavore.config.schema import File, RequireTable, RuleTable
from locavore.core.backend import Place
from locavore.core.policy import Policy, Require, Routing, Rule, When


def policy_of(file: File) -> Policy:
    """The policy as written, with its version."""
    policy = Policy(
        posture=file.posture,
        stage=file.stage or ("observe" if file.baseline else "route"),
        baseline=file.baseline,
        rules=tuple(rule_of(rule) for rule in file.rule),
        labels=labels_of(file),
        aliases=dict(file.alias),
        default_output_tokens=file.default_output_tokens,
        limits=require_of(file.limits),
        max_fallbacks=file.max_fallbacks,
        fallbacks=dict(file.fallback),
        patience_s=file.patience_s,
        explore_share=file.explore.share,
        routing=Routing(**msgspec.structs.asdict(file.routing)),
    )
    return versioned(policy)


def versioned(policy: Policy) -> Policy:
    """`policy` with the hash of its content as version."""
    bare = msgspec.structs.replace(policy, version="")
    content = msgspec.json.encode(bare, order="deterministic")
    version = hashlib.blake2b(content, digest_size=8).hexdigest()
    return msgspec.structs.replace(policy, version=version)


def labels_of(file: File) -> frozenset[str]:
    """Every label that exists: those declared, or else those that rules name."""
    if file.labels is not None:
        return frozenset(file.labels)
    named = {r.when.label for r in file.rule if r.when.label is not None}
    return frozenset(named.union(*(r.set_labels for r in file.rule)))


def rule_of(table: RuleTable) -> Rule:
    return Rule(
        name=table.name,
        when=When(**msgspec.structs.asdict(table.when)),
        require=require_of(table.require),
        set_labels=frozenset(table.set_labels),
    )


def require_of(table: RequireTable) -> Require:
    return Require(
        farthest=place_of(table.farthest),
        jurisdictions=None if table.jurisdictions is None else frozenset(table.jurisdictions),
        backends=None if table.backends is None else frozenset(table.backends),
        capabilities=frozenset(table.capabilities),
        max_cost_usd=table.max_cost_usd,
        max_ttft_s=table.max_ttft_s,
        min_quality=table.min_quality,
        known_price=table.known_price,
    )


def place_of(name: str | None) -> Place | None:
    return None if name is None else Place[name.upper()]

"""How far the audit agrees with verdicts that people reached on the same documents.

    python benchmarks/planner/audit.py --verdicts audit.json

Matches claims by seed, table and text; prints agreement by verdict, and by kind of check for
the wrong ones.
"""

import argparse
import json
import sys
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "src")]

from locavore.planner import audit, claims  # noqa: E402

OUTSIDE = ("reference", "like", "same", "within", "rising")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    default = ROOT / "tests/data/seed_tables/audit.json"
    parser.add_argument("--verdicts", type=Path, default=default)
    args = parser.parse_args()
    loaded = {(c.seed, c.table, c.text): c for c in claims.documents()}
    agreed: Counter[str] = Counter()
    total: Counter[str] = Counter()
    for theirs in json.loads(args.verdicts.read_text()):
        claim = loaded.get((theirs["seed"], theirs["table"], theirs["claim"]))
        kind = "absent" if claim is None else _kind(claim)
        ours = "absent" if claim is None else audit.verdict(claim).verdict
        for key in (theirs["verdict"], f"{theirs['verdict']} by {kind}"):
            total[key] += 1
            agreed[key] += ours == theirs["verdict"]
        if ours != theirs["verdict"]:
            print(f"{theirs['verdict']:12s} ours {ours:12s} {theirs['claim']}")
    for key in sorted(total):
        print(f"{key:40s} {agreed[key]:4d} of {total[key]:4d}")


def _kind(claim: claims.Claim) -> str:
    checks = {part.check for part in claim.parts}
    return "other texts or sources" if checks & set(OUTSIDE) else "computation"


if __name__ == "__main__":
    main()

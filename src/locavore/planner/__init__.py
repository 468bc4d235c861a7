"""What fits, how fast, what it costs, where it breaks even: every figure with formula and source.

The commands as functions, imported when first used: `locavore.planner.fit(...)`, `plan(...)`.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from locavore.planner.finetune import finetune as compare_finetuning
    from locavore.planner.fitting import fit, suggest
    from locavore.planner.machines import target
    from locavore.planner.planning import plan
    from locavore.planner.volume import volume as token_volume
    from locavore.planner.workload import Workload

__all__ = [
    "Workload",
    "compare_finetuning",
    "fit",
    "plan",
    "suggest",
    "target",
    "token_volume",
]

_HOMES = {
    "Workload": ("workload", "Workload"),
    "compare_finetuning": ("finetune", "finetune"),
    "fit": ("fitting", "fit"),
    "plan": ("planning", "plan"),
    "suggest": ("fitting", "suggest"),
    "target": ("machines", "target"),
    "token_volume": ("volume", "volume"),
}
"""Exported name -> (module, name there); a function never shares its name with a module."""


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, inside = _HOMES[name]
    return getattr(importlib.import_module(f"{__name__}.{module}"), inside)

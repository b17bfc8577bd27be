"""Reach: the control theory of prompting. Which outputs can a prompt of at most k tokens force?

Words (Bhargava et al., arXiv 2310.04444): the state x0 is the imposed token sequence, the control u is
the k tokens that are put beside it, the output y is what greedy decoding emits, and R_k(x0) is the set
of outputs that some control of at most k tokens reaches.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from llmctl.reach.config import Phase, Schedule
from llmctl.reach.problem import Layout, Problem, lay_out
from llmctl.reach.result import Result, Step

if TYPE_CHECKING:
    from llmctl.reach.bound import attention_bound
    from llmctl.reach.frontier import ReachableSet, reachable_set
    from llmctl.reach.many import solve_as_completed, solve_many
    from llmctl.reach.scan import ScanResult, scan_state
    from llmctl.reach.solver import solve, solve_state

# Everything that imports torch loads on first use (PEP 562), so that `import llmctl.reach` stays light.
_HEAVY = {
    "ReachableSet": "frontier",
    "ScanResult": "scan",
    "attention_bound": "bound",
    "reachable_set": "frontier",
    "scan_state": "scan",
    "solve": "solver",
    "solve_as_completed": "many",
    "solve_many": "many",
    "solve_state": "solver",
}

__all__ = [
    "Layout",
    "Phase",
    "Problem",
    "ReachableSet",
    "Result",
    "ScanResult",
    "Schedule",
    "Step",
    "attention_bound",
    "lay_out",
    "reachable_set",
    "scan_state",
    "solve",
    "solve_as_completed",
    "solve_many",
    "solve_state",
]


def __getattr__(name: str) -> object:
    """Import a torch module of this package when one of its names is asked for."""
    if name in _HEAVY:
        return getattr(import_module(f"llmctl.reach.{_HEAVY[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

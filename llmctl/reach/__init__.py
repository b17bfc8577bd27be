"""Reach: the control theory of prompting. Which outputs can a prompt of at most k tokens force?

Words (Bhargava et al., arXiv 2310.04444): the state x0 is the imposed token sequence, the control u is
the k tokens that are put beside it, the output y is what greedy decoding emits, and R_k(x0) is the set
of outputs that some control of at most k tokens reaches.
"""

from typing import TYPE_CHECKING

from llmctl.lazy import lazy_names
from llmctl.reach.config import Phase, Schedule
from llmctl.reach.problem import Layout, Problem, lay_out
from llmctl.reach.result import Result, Step

if TYPE_CHECKING:
    from llmctl.reach.bound import attention_bound
    from llmctl.reach.frontier import ReachableSet, reachable_set
    from llmctl.reach.many import solve_as_completed, solve_many
    from llmctl.reach.optimize_recipe import ControlSettings, OptimizeSettings, SearchSettings
    from llmctl.reach.scan import ScanResult, scan_state
    from llmctl.reach.solver import solve, solve_state
    from llmctl.reach.universal import optimize
    from llmctl.reach.universal_result import Optimized, PairScores, UniversalStep

# Everything that imports torch loads on first use (PEP 562), so that `import llmctl.reach` stays light.
_HEAVY = {
    "ControlSettings": "optimize_recipe",
    "OptimizeSettings": "optimize_recipe",
    "Optimized": "universal_result",
    "PairScores": "universal_result",
    "ReachableSet": "frontier",
    "ScanResult": "scan",
    "SearchSettings": "optimize_recipe",
    "UniversalStep": "universal_result",
    "attention_bound": "bound",
    "optimize": "universal",
    "reachable_set": "frontier",
    "scan_state": "scan",
    "solve": "solver",
    "solve_as_completed": "many",
    "solve_many": "many",
    "solve_state": "solver",
}

__all__ = [
    "ControlSettings",
    "Layout",
    "OptimizeSettings",
    "Optimized",
    "PairScores",
    "Phase",
    "Problem",
    "ReachableSet",
    "Result",
    "ScanResult",
    "Schedule",
    "SearchSettings",
    "Step",
    "UniversalStep",
    "attention_bound",
    "lay_out",
    "optimize",
    "reachable_set",
    "scan_state",
    "solve",
    "solve_as_completed",
    "solve_many",
    "solve_state",
]

__getattr__ = lazy_names(__name__, _HEAVY)

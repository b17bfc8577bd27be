"""Reach: the control theory of prompting. Which outputs can a prompt of at most k tokens force?

Words (Bhargava et al., arXiv 2310.04444): the state x0 is the imposed token sequence, the control u is
the k tokens that are put beside it, the output y is what greedy decoding emits, and R_k(x0) is the set
of outputs that some control of at most k tokens reaches.
"""

from typing import TYPE_CHECKING

from llmctl.lazy import lazy_names
from llmctl.reach.problem import Layout, Problem, lay_out
from llmctl.reach.result import Result, Step
from llmctl.reach.search.config import Phase, Schedule

if TYPE_CHECKING:
    from llmctl.reach.bound import attention_bound
    from llmctl.reach.reachable_sets.explore import ReachableSet, reachable_set
    from llmctl.reach.scoring.scan import ScanResult, scan_state
    from llmctl.reach.search.solve import solve, solve_state, solve_steps
    from llmctl.reach.search.solve_many import solve_as_completed, solve_many
    from llmctl.reach.universal.optimize import optimize, optimize_steps
    from llmctl.reach.universal.recipe import ControlSettings, OptimizeSettings, SearchSettings
    from llmctl.reach.universal.result import Optimized, PairScores, UniversalStep

# Everything that imports torch loads on first use (PEP 562), so that `import llmctl.reach` stays light.
_HEAVY = {
    "ControlSettings": "universal.recipe",
    "OptimizeSettings": "universal.recipe",
    "Optimized": "universal.result",
    "PairScores": "universal.result",
    "ReachableSet": "reachable_sets.explore",
    "ScanResult": "scoring.scan",
    "SearchSettings": "universal.recipe",
    "UniversalStep": "universal.result",
    "attention_bound": "bound",
    "optimize": "universal.optimize",
    "optimize_steps": "universal.optimize",
    "reachable_set": "reachable_sets.explore",
    "scan_state": "scoring.scan",
    "solve": "search.solve",
    "solve_as_completed": "search.solve_many",
    "solve_many": "search.solve_many",
    "solve_state": "search.solve",
    "solve_steps": "search.solve",
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
    "optimize_steps",
    "reachable_set",
    "scan_state",
    "solve",
    "solve_as_completed",
    "solve_many",
    "solve_state",
    "solve_steps",
]

__getattr__ = lazy_names(__name__, _HEAVY)

"""Methods of training side by side: same data, steps and seeds, at the same number of trained parameters.

from llmctl.training.comparison.recipe import CompareRecipe
from llmctl.training.comparison.loop import run_comparison
"""

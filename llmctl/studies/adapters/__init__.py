"""Methods of training side by side: same data, steps and seeds, at the same number of trained parameters.

from llmctl.studies.adapters.recipe import AdapterCompareRecipe
from llmctl.studies.adapters.loop import run_comparison
"""

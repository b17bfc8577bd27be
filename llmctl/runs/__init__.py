"""Runs: the folder of a run, its journals, recipe, statistics and report."""

from llmctl.runs.journal import Journal, read_journal
from llmctl.runs.progress import Progress, progress
from llmctl.runs.recipe import Recipe, build_recipe, dump_recipe, list_recipes, load_recipe, recipe_name
from llmctl.runs.report import Figure, Section, Verbatim, new_figure, save_figure, write_report
from llmctl.runs.run import Run
from llmctl.runs.stats import (
    Estimate,
    bootstrap_mean,
    bootstrap_ratio,
    clustered_rate,
    paired_bootstrap,
    student_mean,
    wilson,
)
from llmctl.runs.tables import Table

__all__ = [
    "Estimate",
    "Figure",
    "Journal",
    "Progress",
    "Recipe",
    "Run",
    "Section",
    "Table",
    "Verbatim",
    "bootstrap_mean",
    "bootstrap_ratio",
    "build_recipe",
    "clustered_rate",
    "dump_recipe",
    "list_recipes",
    "load_recipe",
    "new_figure",
    "paired_bootstrap",
    "progress",
    "read_journal",
    "recipe_name",
    "save_figure",
    "student_mean",
    "wilson",
    "write_report",
]

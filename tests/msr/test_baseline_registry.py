"""The registry of baselines: what an entry needs, and baselines of other packages by entry point."""

import sys
from importlib import metadata

import pytest
import yaml

from llmctl.errors import UserError
from llmctl.msr.baselines import BASELINES, BaselineEntry, run_baselines
from llmctl.msr.baselines.registry import BUILT_IN
from llmctl.msr.data.prepare import prepare_data
from llmctl.msr.recipe import MsrRecipe
from llmctl.runs import Run, build_recipe
from llmctl.runs.recipe import load_recipe, recipe_content
from tests.msr.made_data import recipe_of, write_files

PACKAGE = """
import numpy as np

from llmctl.msr.baselines import BaselineEntry
from llmctl.runs import Recipe


class ConstantSettings(Recipe):
    value: float = 1.0


class Constant:
    def __init__(self, items, value):
        self.scores = np.full(len(items), value)

    def fit(self, histories):
        pass

    def score_items(self, history):
        return self.scores


ENTRY = BaselineEntry(
    name="constant",
    description="The same score for every item.",
    factory=lambda items, settings, seed: Constant(items, settings.value),
    settings=ConstantSettings,
)
"""


@pytest.fixture
def package(tmp_path, monkeypatch):
    """An installed package with one baseline, as `pip install` would leave it."""
    site = tmp_path / "site"
    info = site / "constant_baseline-1.0.dist-info"
    info.mkdir(parents=True)
    (site / "constant_baseline.py").write_text(PACKAGE)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: constant-baseline\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[llmctl.baselines]\nconstant = constant_baseline:ENTRY\n")
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.setattr(BASELINES, "_found", None)
    monkeypatch.setattr(BASELINES, "_loaded", dict(BASELINES._loaded))
    yield
    sys.modules.pop("constant_baseline", None)


def test_every_built_in_entry_has_its_own_name_and_a_description():
    assert [BASELINES[name].name for name in BUILT_IN] == list(BUILT_IN)
    assert all(
        isinstance(BASELINES[name], BaselineEntry) and BASELINES[name].description for name in BUILT_IN
    )


def test_a_baseline_of_another_package_is_run_with_its_settings(package, tmp_path):
    assert metadata.version("constant-baseline") == "1.0"
    sections = {"names": ["popularity", "constant"], "constant": {"value": 2.0}}
    recipe = recipe_of(write_files(tmp_path / "data"), baselines=sections)
    assert recipe.baselines.section("constant").value == 2.0
    with Run.open(tmp_path / "run", recipe, "msr baselines") as run:
        metrics = run_baselines(run, recipe, prepare_data(run, recipe), quiet=True)
    assert metrics["constant"]["auc"]["value"] == 0.5  # all candidates are tied
    assert load_recipe(MsrRecipe, tmp_path / "run/recipe.yaml") == recipe
    with Run.open(tmp_path / "run", recipe, "msr baselines") as run:
        assert set(run_baselines(run, recipe, prepare_data(run, recipe), quiet=True)) == set(metrics)


def test_settings_that_are_not_given_are_defaults_in_the_resolved_recipe(package, tmp_path):
    recipe = recipe_of(tmp_path, baselines={"names": ["constant"]})
    content = recipe_content(recipe)["baselines"]
    assert content["constant"] == {"value": 1.0} and content["gru4rec"]["width"] == 64
    assert yaml.safe_load(yaml.safe_dump(content)) == {**content, "names": ["constant"]}


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"names": ["popularty"]}, "no baseline 'popularty'; the nearest is 'popularity'"),
        ({"names": ["random"], "random": {"width": 1}}, "unknown key 'random'"),
        ({"gru4rek": {}}, "unknown key 'gru4rek': known are names, full_ranking, gru4rec, sasrec"),
        ({"gru4rec": {"widht": 3}}, "did you mean 'baselines.gru4rec.width'"),
        ({"names": ["constant"], "constant": {"valu": 3}}, "constant.valu: unknown key"),
    ],
)
def test_what_does_not_fit_is_one_line(package, section, message):
    data = {"interactions": "a.csv", "items": "b.csv"}
    with pytest.raises(UserError) as error:
        build_recipe(MsrRecipe, {"data": data, "baselines": section}, "r.yaml")
    assert message in str(error.value) and "\n" not in str(error.value)

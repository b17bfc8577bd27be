"""One life for every kind of run: plan, check once, work in the folder, print."""

import json
from typing import ClassVar

import pytest
import typer

from llmctl.cli.run_command import Start, add_run_command, carry_out, find_spec
from llmctl.errors import UserError
from llmctl.runs import Recipe, Run, Table
from llmctl.runs.spec import RunSpec


class Sums(Recipe):
    kind: ClassVar[str] = "sums"
    upto: int = 3


calls: list[str] = []


def check(recipe):
    calls.append("preflight")
    if recipe.upto < 0:
        raise UserError("upto is below 0")
    return range(recipe.upto)


def execute(run, recipe, checked, quiet):
    calls.append("execute")
    run.write_metrics({"sum": sum(checked)})
    return {"sum": sum(checked)}


SPEC = RunSpec(
    recipe=Sums,
    preflight=check,
    estimate=lambda recipe: {"numbers": recipe.upto},
    execute=execute,
    show=lambda run, recipe, metrics: [Table(["sum"], [[metrics["sum"]]]), f"run: {run.folder}"],
)


@pytest.fixture(autouse=True)
def no_calls():
    calls.clear()


def test_a_dry_run_neither_checks_nor_makes_a_folder(tmp_path, capsys):
    start = Start("sums", tmp_path / "run", dry_run=True, as_json=True)
    assert carry_out("a sum", SPEC, start, Sums(upto=-1)) is None
    assert json.loads(capsys.readouterr().out) == {
        "recipe": {"kind": "sums", "upto": -1},
        "work": {"numbers": -1},
    }
    assert calls == [] and not (tmp_path / "run").exists()


def test_checks_run_once_and_before_there_is_a_folder(tmp_path, capsys):
    with pytest.raises(UserError, match="below 0"):
        carry_out("a sum", SPEC, Start("sums", tmp_path / "run"), Sums(upto=-1))
    assert calls == ["preflight"] and not (tmp_path / "run").exists()
    calls.clear()
    assert carry_out("a sum", SPEC, Start("sums", tmp_path / "run"), Sums()) == {"sum": 3}
    assert calls == ["preflight", "execute"]
    assert f"run: {tmp_path / 'run'}" in capsys.readouterr().out
    assert json.loads((tmp_path / "run/manifest.json").read_text())["commands"] == ["a sum"]


def test_json_is_the_metrics_alone(tmp_path, capsys):
    carry_out("a sum", SPEC, Start("sums", tmp_path / "run", as_json=True), Sums())
    assert json.loads(capsys.readouterr().out) == {"sum": 3}


def test_a_run_that_is_open_is_checked_from_python_too(tmp_path):
    with Run.open(tmp_path / "run", Sums(), "python") as run:
        assert SPEC.start(run, Sums()) == {"sum": 3}
    assert calls == ["preflight", "execute"]


def test_a_registered_command_reads_the_recipe_and_its_overrides(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sums.yaml").write_text("kind: sums\nupto: 2\n")
    app = typer.Typer()
    app.callback()(lambda: None)
    add_run_command(app, "a sum", f"{__name__}:SPEC", help="Add numbers.")
    typer.main.get_command(app).main(["sum", "sums.yaml", "--set", "upto=5"], standalone_mode=False)
    assert json.loads((tmp_path / "runs/sums/metrics.json").read_text()) == {"sum": 10}


@pytest.mark.parametrize(
    "name",
    [
        "rise.spec:RISE_RUN",
        "training.spec:SFT_RUN",
        "studies.adapters.spec:COMPARE_RUN",
        "reach.curves.spec:CURVE_RUN",
        "reach.curves.spec:COMPARE_RUN",
        "reach.universal.spec:OPTIMIZE_RUN",
        "msr.spec:MSR_RUN",
        "msr.spec:SUMMARIZE_ITEMS_RUN",
        "msr.spec:SUMMARIZE_USERS_RUN",
        "msr.spec:TRAIN_RUN",
        "msr.spec:EVALUATE_RUN",
        "msr.spec:PREPARE_RUN",
        "msr.spec:BASELINES_RUN",
    ],
)
def test_every_spec_that_a_command_names_is_there(name):
    spec = find_spec(f"llmctl.{name}")
    assert isinstance(spec, RunSpec) and issubclass(spec.recipe, Recipe)

"""Search methods are plug-ins: what they say of themselves holds, and a package can add one."""

import json
import sys
from dataclasses import fields, replace

import pytest
from typer.testing import CliRunner

from llmctl.errors import UserError
from llmctl.reach import Phase, Problem, Schedule, solve
from llmctl.reach.search import schedule as schedules
from llmctl.reach.search.methods.registry import METHODS, style_of
from llmctl.reach.search.prepare import start_search
from tests.reach.oracle import FEW, STATE

# A whole method of another package: it tries the target's own token k times over.
GUEST = """
import torch
from llmctl.reach.search.methods.registry import SearchMethod


def run(search, phase):
    target = search.scorer.layout.target_ids[0]
    search.evaluate(torch.full((1, phase.k), target), phase.method)
    yield search.step(phase.method, phase.k)


METHOD = SearchMethod(
    run=run, label="echo", summary="Repeats the target.", sizes=lambda candidates, steps: {}, reads=(),
    colour="#123456", marker="*",
)
"""


@pytest.fixture()
def guest(tmp_path, monkeypatch):
    """An installed package that adds the method "echo"."""
    info = tmp_path / "guest_methods-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: guest-methods\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[llmctl.methods]\necho = guest_methods:METHOD\n")
    (tmp_path / "guest_methods.py").write_text(GUEST)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(METHODS, "_found", None)  # entry points are read once per process
    yield
    METHODS._loaded.pop("echo", None)
    sys.modules.pop("guest_methods", None)


class Recording:
    """A phase that notes which of its fields are read."""

    def __init__(self, phase):
        self.phase, self.read = phase, set()

    def __getattr__(self, name):
        self.read.add(name)
        return getattr(self.phase, name)


@pytest.mark.parametrize("name", list(METHODS))
def test_a_method_reads_the_fields_it_names_and_no_others(name, small_model, letters, monkeypatch):
    # greedy copies its phase for shorter lengths, which a recording cannot be.
    monkeypatch.setattr(
        "llmctl.reach.search.methods.greedy.replace", lambda p, **new: replace(p.phase, **new)
    )
    k = METHODS[name].max_k or 2
    # Without an early stop, so that every part of the method runs.
    phase = Recording(Phase(name, k, candidates=2, steps=3, swaps=2, buffer=2, stop_early=False))
    search = start_search(small_model, letters, Problem(STATE, [9], candidates=FEW), k)
    steps = list(METHODS[name].run(search, phase))
    assert {step.method for step in steps} == {name}
    assert phase.read - {"method", "k"} == set(METHODS[name].reads)


@pytest.mark.parametrize("name", list(METHODS))
def test_a_method_describes_itself_and_sizes_its_phases(name):
    method = METHODS[name]
    known = {field.name for field in fields(Phase)}
    assert method.label and method.summary.endswith(".")
    assert set(method.reads) <= known
    assert set(method.sizes(16, 4)) <= set(method.reads)
    assert schedules.single(name, method.max_k or 2).phases[0].method == name


def test_styles_of_methods_differ_and_an_unknown_one_gets_a_neutral_style():
    styles = [style_of(name) for name in ("base", *METHODS)]
    assert len({style.colour for style in styles}) == len({style.marker for style in styles}) == len(styles)
    assert style_of("of another installation") not in styles


def test_a_method_of_another_package_solves_and_is_drawn(guest, small_model, letters):
    problem = Problem(STATE, [7])
    result = solve(small_model, letters, problem, schedules.single("echo", 2))
    assert [step.method for step in result.path[1:]] == ["echo", "echo"][: len(result.path) - 1]
    assert (result.schedule, result.path[1].control_ids) == ("echo", (7,))
    assert style_of("echo").colour == "#123456"
    assert schedules.schedule_names()[-1] == "echo"


def test_a_method_of_another_package_works_from_the_command_line(guest, tiny_model):
    from llmctl.cli.app import app

    options = ["--state", "abc", "--target", "d", "--k", "2", "--method", "echo", "--json"]
    done = CliRunner().invoke(app, ["reach", "solve", "--model", str(tiny_model), *options])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["schedule"] == "echo"


def test_a_recipe_may_name_a_method_of_another_package(guest, tiny_model, tmp_path):
    from llmctl.cli.app import app

    recipe = tmp_path / "curve.yaml"
    recipe.write_text(
        f"kind: reach-curve\nmodel: {tiny_model}\nstates: {{count: 2, lengths: [4]}}\n"
        "search: {schedule: echo, max_k: 2}\nbaseline: none\n"
    )
    done = CliRunner().invoke(app, ["reach", "curve", str(recipe), "--run", str(tmp_path / "run")])
    assert done.exit_code == 0, done.output
    pairs = [json.loads(line) for line in (tmp_path / "run/pairs.jsonl").read_text().splitlines()]
    assert {pair["schedule"] for pair in pairs} == {"echo"}
    assert {pair["method"] for pair in pairs} <= {"base", "echo"}


def test_without_the_package_the_recipe_is_refused_and_names_are_listed():
    from llmctl.reach.curves.recipe import CurveSearchSettings

    with pytest.raises(ValueError, match="no search method 'echo'.*known are scan, greedy"):
        CurveSearchSettings(schedule="echo")


def test_a_method_that_finds_short_controls_only_is_refused_for_longer_ones():
    from llmctl.reach.curves.recipe import CurveSearchSettings

    assert CurveSearchSettings(schedule="scan", max_k=1).max_k == 1
    with pytest.raises(ValueError, match="scan finds controls of at most 1"):
        CurveSearchSettings(schedule="scan", max_k=2)
    with pytest.raises(UserError, match="exhausts k = 1 only"):
        schedules.single("scan", 2)


def test_a_scan_as_a_schedule_is_the_scan_of_a_phase(small_model, letters):
    problem = Problem(STATE, [7])
    one = solve(small_model, letters, problem, schedules.single("scan", 1))
    two = solve(small_model, letters, problem, Schedule("scan", (Phase("scan", 1),)))
    assert one == two

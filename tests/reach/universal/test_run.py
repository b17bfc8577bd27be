"""The run of `reach optimize`: resume, report, and mistakes that are refused before there is a folder."""

import json
from types import SimpleNamespace

import pytest
import yaml
from typer.testing import CliRunner

from llmctl.cli.reach import app
from llmctl.errors import UserError
from llmctl.reach.universal import run as optimize_run
from llmctl.reach.universal.data import read_pairs
from llmctl.reach.universal.recipe import OptimizeRecipe, PairSettings
from llmctl.runs import Journal, Run, load_recipe, read_journal, timing

ROWS = [{"q": f"say {i}", "a": "ab"[i % 2] * (1 + i % 2)} for i in range(10)]


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return path


def recipe_for(model, file, **changes):
    return {
        "kind": "reach-optimize",
        "model": str(model),
        "data": {"path": str(file), "question": "q", "answer": "a", "train": 5, "held_out": 3},
        "control": {"k": 2, "allowed": list(range(70, 110))},
        "search": {"steps": 3, "warm_steps": 2, "candidates": 6, "minibatch": 3, "finalists": 2},
        "baseline": "random",
        "compare": ["hi"],
    } | changes


def start(folder, content):
    recipe = OptimizeRecipe.model_validate({k: v for k, v in content.items() if k != "kind"})
    data = optimize_run.check_inputs(recipe)
    with Run.open(folder, recipe, "reach optimize") as run:
        return optimize_run.run_optimize(run, recipe, data, quiet=True)


def files(folder):
    """All bytes of a run; the journal of seconds may lack what a kill took."""
    names = [p for p in sorted(folder.rglob("*")) if p.is_file() and p.name not in ("timing.jsonl", ".lock")]
    return {str(path.relative_to(folder)): path.read_bytes() for path in names}


# The split that is trained on, held out as well.
SORT = ["data.task=sort", "data.path=", "data.answer=answer", "data.held_out_split=train"]


class Killed(BaseException):
    pass


def test_a_run_killed_after_every_record_ends_with_the_same_files(tiny_model, file, tmp_path, monkeypatch):
    for module in (optimize_run, timing):
        monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=lambda: 0.0))
    content = recipe_for(tiny_model, file)
    start(tmp_path / "whole", content)
    append, kills = Journal.append, 0

    def append_and_die(self, key, record):
        nonlocal left
        if left == 0:
            raise Killed
        append(self, key, record)
        left -= 1

    monkeypatch.setattr(Journal, "append", append_and_die)
    for _ in range(200):
        left = 1 + 3 * (kills % 4)  # after a record or between it and its seconds
        try:
            start(tmp_path / "killed", content)
            break
        except Killed:
            kills += 1
    assert kills >= 6
    assert files(tmp_path / "killed") == files(tmp_path / "whole")


def test_the_report_tells_what_was_measured(tiny_model, file, tmp_path):
    metrics = start(tmp_path / "run", recipe_for(tiny_model, file))
    assert json.loads((tmp_path / "run/metrics.json").read_text())["data"] == {
        "train": 5,
        "held_out": 3,
        "repeats": 0,
    }
    assert set(metrics["scores"]) == {
        "no control",
        "random controls of the same length",
        "by hand: 'hi'",
        "search random",
        "control",
    }
    search = metrics["search"]
    totals = {name: search[name]["forward_tokens"] + search[name]["backward_tokens"] for name in search}
    assert totals["random"] >= totals["gcg"]
    lines = list(read_journal(tmp_path / "run/journal/search-gcg.jsonl"))
    assert [line["key"] for line in lines] == [f"step-{i}" for i in range(1, 6)]
    assert metrics["control"]["ids"] == lines[-1]["control_ids"]
    # The control was re-scored on the training pairs alone, from its ids.
    assert metrics["scores"]["control"]["train"]["loss"].value == pytest.approx(lines[-1]["loss"], abs=1e-5)
    gain = metrics["gain"]["no control"]["held_out"]["loss"]
    scores = metrics["scores"]
    difference = scores["no control"]["held_out"]["loss"].value - scores["control"]["held_out"]["loss"].value
    assert gain.value == pytest.approx(difference)
    report = (tmp_path / "run/report.md").read_text()
    for text in ("held out", "n = 5 train, n = 3 held out", "What each token is worth", "figures/search.png"):
        assert text in report


def test_other_held_out_pairs_leave_the_control_as_it_is(tiny_model, file, tmp_path):
    other = tmp_path / "other.jsonl"
    other.write_text("".join(json.dumps({"q": f"tell {i}", "a": "zz"}) + "\n" for i in range(4)))
    found = []
    for name, path in (("a", None), ("b", str(other))):
        content = recipe_for(tiny_model, file, baseline=None)
        content["data"] |= {"held_out_path": path, "split_seed": 0}
        found.append(start(tmp_path / name, content))
    assert found[0]["control"]["ids"] == found[1]["control"]["ids"]
    assert found[0]["scores"]["control"]["train"] == found[1]["scores"]["control"]["train"]
    assert found[0]["scores"]["control"]["held_out"] != found[1]["scores"]["control"]["held_out"]


def test_without_held_out_pairs_the_report_says_that_nothing_is_known_of_others(tiny_model, file, tmp_path):
    content = recipe_for(tiny_model, file, baseline=None)
    content["data"] |= {"held_out": 0}
    metrics = start(tmp_path / "run", content)
    assert set(metrics["scores"]["control"]) == {"train"}
    assert "No pairs were held out" in (tmp_path / "run/report.md").read_text()


def test_other_data_under_a_started_run_are_refused(tiny_model, file, tmp_path):
    start(tmp_path / "run", recipe_for(tiny_model, file, baseline=None))
    file.write_text(file.read_text().replace("say", "tell"))
    with pytest.raises(UserError, match="data_fingerprint"):
        start(tmp_path / "run", recipe_for(tiny_model, file, baseline=None))


def test_no_question_is_in_both_sets_and_repeats_are_counted(tmp_path):
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps({"question": f"q{i % 6}", "answer": "x"}) + "\n" for i in range(12)))
    data = read_pairs(PairSettings(path=path, train=4, held_out=2, split_seed=0))
    assert [pair.question for pair in data.train + data.held_out] == [f"q{i}" for i in range(6)]
    shuffled = read_pairs(PairSettings(path=path, train=4, held_out=2, split_seed=3))
    assert {pair.question for pair in shuffled.train} & {pair.question for pair in shuffled.held_out} == set()
    assert shuffled != data
    assert shuffled == read_pairs(PairSettings(path=path, train=4, held_out=2, split_seed=3))
    reversed_rows = path.read_text().splitlines()[::-1]
    path.write_text("\n".join([reversed_rows[0], *reversed_rows]))
    assert read_pairs(PairSettings(path=path, train=4, held_out=2, split_seed=0)).repeats == 1


def test_pairs_come_from_a_task_with_its_own_splits():
    data = read_pairs(
        PairSettings(task="sort", train=5, held_out=3, prompt="Q: {question}", reply=" {answer}")
    )
    assert len(data.train) == 5
    assert len(data.held_out) == 3
    assert data.train[0].question.startswith("Q: ")
    numbers = data.train[0].question.removeprefix("Q: ").split()
    assert data.train[0].answer == " " + " ".join(sorted(numbers))


def call(*arguments):
    return CliRunner().invoke(app, ["optimize", *map(str, arguments)])


@pytest.fixture
def recipe(tiny_model, file, tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe_for(tiny_model, file)))
    return path


def test_the_command_prints_scores_and_goes_on_where_it_stopped(recipe, tmp_path):
    folder = tmp_path / "run"
    first = call(recipe, "--run", folder, "--set", "baseline=")
    assert first.exit_code == 0, first.output
    assert "no control" in first.output and "report.html" in first.output
    again = call(recipe, "--run", folder, "--set", "baseline=", "--json")
    assert json.loads(again.stdout)["control"]["k"] >= 1
    other = call(recipe, "--run", folder, "--set", "baseline=", "--set", "control.k=3")
    assert isinstance(other.exception, UserError)
    assert "control.k 2 -> 3" in str(other.exception)


def test_a_dry_run_estimates_the_work_and_makes_nothing(recipe, tmp_path):
    found = call(recipe, "--run", tmp_path / "run", "--dry-run", "--json")
    work = json.loads(found.stdout)["work"]
    # 2 warm steps and 3 at k = 2; a step scores 3 x 6 candidates, 5 x 2 finalists and 3 gradients.
    assert work["sequences scored by the search, at most"] == 5 * (18 + 10 + 3)
    assert (work["training pairs"], work["held-out pairs"]) == (5, 3)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("sets", "message"),
    [
        (["control.k=0"], "control.k is 0.*greater than or equal to 1"),
        (["data.train=20"], "need 23 pairs, but the data hold 10"),
        (["data.question=quest"], r"pairs.jsonl, line \d+: field 'quest' is missing.*'q', 'a'"),
        (["data.path=/nowhere.jsonl"], "no file or folder at /nowhere.jsonl"),
        (["data.path=", "data.pairs=[]"], "hold no pairs"),
        (["data.path=", "data.pairs=[[a, ' ']]"], r"data.pairs.0: the answer is ' ', which has no tokens"),
        (["data.pairs=[[a, b]]"], "path and pairs is given, but the pairs come from exactly one"),
        (["data.held_out_path={file}"], "3 held-out questions are training questions too"),
        (["data.prompt={long}"], r"line \d+: state, target and 2 control tokens are 1\d\d\d tokens.*1024"),
        (["control.position=template"], "position template needs a template"),
        (["control.forbidden=[9999]"], "forbidden holds token 9999"),
        (["control.allowed=[70]", "control.forbidden=[70]"], "no token is left"),
        (["baseline=gcg"], "a baseline must be another method"),
        (["adapter=/nowhere"], "adapter is /nowhere, which has no adapter_config.json"),
        (["model=nonsense"], "nonsense"),
        (["compare=['']"], "compare holds '', which has no tokens"),
        (SORT, "training questions too"),
        (["search.stepz=3"], "did you mean 'search.steps'"),
    ],
)
def test_a_mistake_is_one_line_before_there_is_a_folder(recipe, file, tmp_path, sets, message):
    values = {"{file}": str(file), "{long}": "'" + "x" * 1100 + "{question}'"}
    for name, value in values.items():
        sets = [text.replace(name, value) for text in sets]
    found = call(recipe, "--run", tmp_path / "run", *(part for text in sets for part in ("--set", text)))
    assert isinstance(found.exception, UserError), found.output
    assert "\n" not in str(found.exception)
    with pytest.raises(UserError, match=message):
        raise found.exception
    assert not (tmp_path / "run").exists()


def test_the_demo_recipe_is_whole():
    recipe = load_recipe(OptimizeRecipe, "reach/optimize-demo")
    data = read_pairs(recipe.data)
    assert (len(data.train), len(data.held_out), data.repeats) == (16, 32, 0)

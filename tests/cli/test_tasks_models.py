import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from llmctl.errors import UserError
from llmctl.tasks.types import Problem


class FakeTask:
    name = "sums"

    def __init__(self, path, options):
        self.path, self.options = path, options

    def problems(self, split="train", limit=None, seed=0):
        self.asked = (split, limit, seed)
        return (Problem(f"{split}-{n}", f"{n} + {n}?", str(2 * n), meta={"seed": seed}) for n in range(limit))

    def conversation(self, problem):
        parts = [{"type": "text", "text": problem.prompt}, {"type": "image"}]
        return [{"role": "system", "content": "Add."}, {"role": "user", "content": parts}]


@pytest.fixture
def tasks(monkeypatch):
    made = []

    def get_task(name, path=None, **options):
        if name != "sums":
            raise UserError(f"no task {name!r}: there is sums")
        made.append(FakeTask(path, options))
        return made[-1]

    info = SimpleNamespace(
        name="sums", description="Sums [of two]", needs=("no network",), splits=("train", "test")
    )
    fake = SimpleNamespace(get_task=get_task, list_tasks=lambda: [info])
    monkeypatch.setitem(sys.modules, "llmctl.tasks", fake)
    return made


def test_tasks_are_listed(llmctl, tasks):
    done = llmctl("tasks", "list")
    assert done.code == 0
    for word in ("sums", "Sums [of two]", "no network", "train, test"):
        assert word in done.out
    assert json.loads(llmctl("tasks", "list", "--json").out) == [
        {"name": "sums", "description": "Sums [of two]", "needs": ["no network"], "splits": ["train", "test"]}
    ]


def test_problems_are_shown_as_they_are_posed(llmctl, tasks):
    done = llmctl(
        "tasks", "show", "sums", "--path", "a.jsonl", "--limit", "2", "--seed", "5", "--split", "test",
        "--set", "size=3", "--set", "names=[no, 1e-2]",
    )  # fmt: skip
    assert done.code == 0
    assert tasks[0].path == Path("a.jsonl")
    assert tasks[0].options == {"size": 3, "names": ["no", 0.01]}
    assert tasks[0].asked == ("test", 2, 5)
    assert done.out == (
        "== test-0\n[system] Add.\n[user] 0 + 0? <image>\n[answer] 0\n\n"
        "== test-1\n[system] Add.\n[user] 1 + 1? <image>\n[answer] 2\n"
    )


def test_problems_as_json(llmctl, tasks):
    problems = json.loads(llmctl("tasks", "show", "sums", "--limit", "1", "--json").out)
    assert problems[0]["id"] == "train-0" and problems[0]["meta"] == {"seed": 0}
    assert problems[0]["conversation"][0] == {"role": "system", "content": "Add."}


def test_a_task_that_is_not_there_and_a_broken_option_are_mistakes(llmctl, tasks):
    assert llmctl("tasks", "show", "nix").err == "error: no task 'nix': there is sums\n"
    done = llmctl("tasks", "show", "sums", "--set", "size")
    assert done.code == 2 and "--set 'size' is not of the form option=value" in done.err
    done = llmctl("tasks", "show", "sums", "--set", "path=x")
    assert done.code == 2 and "give it as NAME or --path" in done.err


@pytest.fixture
def models(monkeypatch):
    def pull(name):
        if name != "tiny":
            raise UserError(f"no model {name!r}")
        return Path("/cache/tiny")

    info = SimpleNamespace(
        name="tiny", description="A tiny one", source="package", is_here=True, path=Path("/c")
    )
    facts = {"architecture": "LlamaForCausalLM", "parameters": 134_515_008, "has_chat_template": True}
    fake = SimpleNamespace(list_models=lambda: [info], pull=pull)
    monkeypatch.setitem(sys.modules, "llmctl.models", fake)
    description = SimpleNamespace(describe=lambda name: facts)
    monkeypatch.setitem(sys.modules, "llmctl.models.description", description)


def test_models_are_listed(llmctl, models):
    done = llmctl("models", "list")
    assert done.code == 0 and "A tiny one" in done.out and "yes" in done.out
    assert json.loads(llmctl("models", "list", "--json").out) == [
        {"name": "tiny", "description": "A tiny one", "source": "package", "is_here": True, "path": "/c"}
    ]


def test_a_model_is_pulled(llmctl, models):
    assert llmctl("models", "pull", "tiny").out == "/cache/tiny\n"
    assert json.loads(llmctl("models", "pull", "tiny", "--json").out) == {
        "name": "tiny",
        "path": "/cache/tiny",
    }
    assert llmctl("models", "pull", "nix").code == 2


def test_a_model_is_described(llmctl, models):
    done = llmctl("models", "show", "tiny")
    assert "134,515,008" in done.out and "chat template" in done.out
    assert json.loads(llmctl("models", "show", "tiny", "--json").out)["parameters"] == 134_515_008

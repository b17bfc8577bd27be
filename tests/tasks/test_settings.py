"""One base for the task section of every recipe; each recipe's keys and defaults stay what they were."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from llmctl.errors import UserError
from llmctl.rise.recipe import RiseTaskSettings
from llmctl.tasks.settings import TaskSettings


def keys(model):
    schema = model.model_json_schema()
    return {name: field.get("default") for name, field in schema["properties"].items()}


def test_the_task_section_of_rise_has_the_keys_and_defaults_that_recipes_use():
    assert keys(RiseTaskSettings) == {
        "name": "sort",
        "path": None,
        "test_path": None,
        "options": {},
        "train_split": "train",
        "test_split": "test",
    }


def test_the_base_needs_a_name():
    with pytest.raises(ValidationError):
        TaskSettings()


def test_settings_open_their_task_with_options_and_path(tmp_path):
    assert len(TaskSettings(name="sort", options={"size": 7}).open()) == 7
    (tmp_path / "a.jsonl").write_text('{"prompt": "1 + 1", "answer": "2"}\n')
    (tmp_path / "b.jsonl").write_text('{"prompt": "1 + 2", "answer": "3"}\n')
    settings = TaskSettings(name="jsonl", path=tmp_path / "a.jsonl")
    assert [p.answer for p in settings.open()] == ["2"]
    assert [p.answer for p in settings.open(tmp_path / "b.jsonl")] == ["3"]
    with pytest.raises(UserError, match="no file or folder at /no/such"):
        settings.open(Path("/no/such"))

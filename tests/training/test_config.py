import subprocess
import sys

import pytest
from pydantic import ValidationError

from llmctl.training import LoraSettings, TrainSettings


def test_defaults_are_valid_and_survive_json():
    settings = TrainSettings()
    assert TrainSettings.model_validate_json(settings.model_dump_json()) == settings


def test_an_unknown_key_is_refused():
    with pytest.raises(ValidationError, match="learning_rat"):
        TrainSettings(learning_rat=1e-3)


def test_settings_can_not_be_changed_in_place():
    with pytest.raises(ValidationError, match="frozen"):
        TrainSettings().lora.r = 4


def test_deepspeed_and_fsdp_exclude_one_another():
    with pytest.raises(ValidationError, match="exclude one another"):
        TrainSettings(distributed={"deepspeed": "a.json", "fsdp": "b.json"})


def test_every_field_says_what_it_means():
    for model in (TrainSettings, LoraSettings):
        for name, field in model.model_fields.items():
            assert field.description, name


def test_importing_the_package_loads_nothing_heavy():
    heavy = "('torch', 'trl', 'transformers')"
    code = f"import sys, llmctl.training; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

"""The registry of adapters: what each record says, and an adapter that another package adds."""

import sys

import pytest
from pydantic import ValidationError

from llmctl.errors import UserError
from llmctl.training import TrainSettings, train
from llmctl.training.adapters import ADAPTERS, BUILTIN
from llmctl.training.config import SaveSettings
from llmctl.training.preflight import check_sft
from llmctl.training.recipe import SftRecipe

from .helpers import settings, some_rows
from .runs import run_sft_in, sft_recipe

GUEST = """
from peft import IA3Config

from llmctl.training.adapters import AdapterMethod

IA3 = AdapterMethod(
    name="ia3",
    title="IA3",
    description="Train vectors that scale keys, values and MLP activations.",
    settings=IA3Config,
    make_config=lambda options, model: options,
    peft_type="IA3",
)
"""
IA3_OPTIONS = {"target_modules": ["k_proj", "v_proj", "down_proj"], "feedforward_modules": ["down_proj"]}


@pytest.fixture
def guest(tmp_path, monkeypatch):
    """An installed package that adds the adapter ia3."""
    folder = tmp_path / "site"
    info = folder / "guest_adapters-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: guest-adapters\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[llmctl.adapters]\nia3 = guest_ia3:IA3\n")
    (folder / "guest_ia3.py").write_text(GUEST)
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setattr(ADAPTERS, "_found", None)
    monkeypatch.setattr(ADAPTERS, "_loaded", {})
    yield
    sys.modules.pop("guest_ia3", None)


@pytest.mark.parametrize("name", BUILTIN)
def test_a_record_has_its_own_name_a_description_and_a_key_of_the_settings(name):
    adapter = ADAPTERS[name]
    assert adapter.name == name and adapter.title and adapter.description.endswith(".")
    assert adapter.options_key in TrainSettings.model_fields


def test_an_unknown_adapter_is_refused_with_all_names():
    with pytest.raises(ValidationError, match="should be one of full, lora, qlora, sparse-gin"):
        TrainSettings(adapter="dora")


def test_settings_without_adapter_options_are_written_as_before_the_key_existed():
    assert "adapter_options" not in TrainSettings().model_dump(mode="json")
    assert "adapter_options" not in SftRecipe().model_dump(mode="json")["train"]


def test_options_under_the_wrong_key_are_refused():
    with pytest.raises(ValidationError, match="the options of adapter lora are under lora: move them there"):
        TrainSettings(adapter="lora", adapter_options={"r": 4})


def test_a_saved_adapter_of_another_method_or_with_full_fine_tuning_is_refused():
    with pytest.raises(UserError, match="init_adapter a is a LORA adapter, but adapter is sparse-gin"):
        ADAPTERS["sparse-gin"].check_saved("LORA", "a")
    ADAPTERS["qlora"].check_saved("LORA", "a")
    with pytest.raises(UserError, match="init_adapter is a, but adapter is full, which trains no adapter"):
        ADAPTERS["full"].check_start("a")


def test_unknown_options_are_refused_before_there_is_a_folder(tiny_model):
    recipe = SftRecipe(model=str(tiny_model), train={"adapter": "sparse-gin", "gin": {"widht": 4}})
    with pytest.raises(UserError, match="gin has an option that Sparse-GIN does not know .*widht"):
        check_sft(recipe)


def test_an_adapter_of_another_package_is_listed_without_an_import(guest):
    assert list(ADAPTERS) == [*BUILTIN, "ia3"]
    TrainSettings(adapter="ia3")
    assert "guest_ia3" not in sys.modules


def test_an_adapter_of_another_package_is_trained_by_name(guest, tiny_model, tmp_path):
    content = sft_recipe(tiny_model)
    content["train"] |= {"adapter": "ia3", "adapter_options": IA3_OPTIONS}
    metrics = run_sft_in(tmp_path / "run", content)
    assert metrics["losses"][-1] < metrics["losses"][0]
    assert '"IA3"' in (tmp_path / "run/model/adapter_config.json").read_text()
    again = run_sft_in(tmp_path / "run", content)  # finished: the stored result is read
    assert again["losses"] == metrics["losses"]


def test_training_goes_on_from_a_saved_adapter_of_another_package(guest, tiny_model, tmp_path):
    tuning = settings(adapter="ia3", adapter_options=IA3_OPTIONS, save=SaveSettings(save_steps=0))
    first = train(tiny_model, some_rows(), tuning, tmp_path / "first")
    second = train(tiny_model, some_rows(), tuning, tmp_path / "second", init_adapter=first.output)
    assert second.losses[0] < first.losses[0] and second.is_adapter


def test_options_of_another_package_are_checked(guest):
    wrong = TrainSettings(adapter="ia3", adapter_options={"no_such": 1})
    with pytest.raises(UserError, match="adapter_options has an option that IA3 does not know .*no_such"):
        ADAPTERS["ia3"].options(wrong)

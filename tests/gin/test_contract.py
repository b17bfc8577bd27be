"""The contract of Sparse-GIN: files of earlier versions, other base models, and what it refuses."""

import json
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file

from llmctl.errors import UserError
from llmctl.gin import SparseGinConfig

from .tiny import adapted, logits_of, some_ids, tiny_model, visible_config


def test_scales_have_one_dimension_so_that_they_can_be_sharded(tmp_path):
    adapted().save_pretrained(tmp_path)
    scales = [t for name, t in load_file(tmp_path / "adapter_model.safetensors").items() if "scale" in name]
    assert len(scales) == 3 and {tuple(scale.shape) for scale in scales} == {(1,)}


@pytest.mark.parametrize("low_memory", [False, True])
def test_a_file_of_an_earlier_version_with_scales_of_no_dimension_loads(tmp_path, low_memory):
    model = adapted()
    model.save_pretrained(tmp_path)
    path, config = tmp_path / "adapter_model.safetensors", tmp_path / "adapter_config.json"
    old = {name: t.reshape(()) if "scale" in name else t for name, t in load_file(path).items()}
    save_file(old, path, metadata={"format": "pt"})
    fields = json.loads(config.read_text())
    del fields["base_sizes"]  # it was not written then
    config.write_text(json.dumps(fields))
    loaded = PeftModel.from_pretrained(tiny_model(), tmp_path, low_cpu_mem_usage=low_memory).eval()
    assert torch.equal(logits_of(loaded, some_ids()), logits_of(model, some_ids()))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_size": 64}, "trained on a model with hidden_size 32, but this model has hidden_size 64"),
        (
            {"num_hidden_layers": 2},
            "with num_hidden_layers 3, but this model has num_hidden_layers 2: load it on its own base model",
        ),
    ],
)
def test_another_base_model_is_refused_with_both_values(tmp_path, changes, message):
    adapted().save_pretrained(tmp_path)
    with pytest.raises(UserError, match=message) as error:
        PeftModel.from_pretrained(tiny_model(**changes), tmp_path)
    assert "\n" not in str(error.value)


def test_one_configuration_serves_models_of_several_sizes():
    from peft import get_peft_model

    config = visible_config()
    for size in (32, 64):
        get_peft_model(tiny_model(hidden_size=size), config)
    assert config.base_sizes == {"hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"width": "8"}, "width is '8', but it must be a whole number of at least 1"),
        ({"width": 8.5}, "width is 8.5, but it must be a whole number of at least 1"),
        ({"depth": True}, "depth is True, but it must be a whole number"),
        ({"threshold": None}, "threshold is None, but a number is needed"),
        ({"epsilon": "0.6"}, "epsilon is '0.6', but a number is needed"),
        ({"dropout": None}, "dropout is None, but a number is needed"),
        ({"sharpness": "10"}, "sharpness is '10', but a number is needed"),
        ({"layers": 3}, "layers is 3, but distinct indices"),
        ({"layers": ["1"]}, r"layers is \['1'\], but distinct indices"),
        (
            {"layers": [1], "target_modules": ["layers.0"]},
            r"layers is \[1\] and target_modules is \['layers.0'\], but both choose the layers: remove one",
        ),
    ],
)
def test_a_value_of_the_wrong_type_is_refused_by_name_in_one_line(settings: dict[str, Any], message: str):
    with pytest.raises(UserError, match=message) as error:
        SparseGinConfig(**settings)
    assert "\n" not in str(error.value)


def test_a_saved_configuration_with_layers_and_the_modules_made_from_them_loads(tmp_path):
    adapted(layers=[2, 0]).save_pretrained(tmp_path)
    loaded = SparseGinConfig.from_pretrained(tmp_path)
    assert loaded.layers == [0, 2] and loaded.target_modules is not None


def test_adapter_names_in_a_batch_are_refused():
    model = adapted()
    for call in (model, model.generate):
        with pytest.raises(
            UserError, match="adapter_names is given, but Sparse-GIN applies the active adapt"
        ):
            call(input_ids=some_ids(), adapter_names=["default", "__base__"])


def test_a_weighted_adapter_is_refused():
    with pytest.raises(UserError, match="add_weighted_adapter is not possible with Sparse-GIN.*not linear"):
        adapted().add_weighted_adapter(["default"], [1.0], "mixed")

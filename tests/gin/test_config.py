import subprocess
import sys

import pytest
from peft import PeftConfig
from peft.utils.peft_types import PeftType

import llmctl.gin
from llmctl.errors import UserError
from llmctl.gin import SparseGinConfig
from llmctl.gin.peft_type import add_peft_type


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"placement": "before"}, "placement is 'before'.*before_mlp, after_mlp, parallel"),
        ({"heads": "max"}, "heads is 'max'.*sum, mean, mix, any, each"),
        ({"self_loops": "no"}, "self_loops is 'no'.*keep, drop, only"),
        ({"activation": "tanh"}, "activation is 'tanh'.*prelu"),
        ({"norm": "batch"}, "norm is 'batch'.*rms, layer, none"),
        ({"width": 0}, "width is 0.*at least 1"),
        ({"depth": 0}, "depth is 0.*at least 1"),
        ({"dropout": 1.0}, r"dropout is 1.0.*\[0, 1\)"),
        ({"layers": []}, r"layers is \[\].*leave it out"),
        ({"layers": [1, 1]}, r"layers is \[1, 1\].*distinct"),
        ({"layers": [-1]}, r"layers is \[-1\].*from 0"),
        ({"sharpness": 0.0}, "sharpness is 0.0.*None turns it off"),
        ({"distance_scale": -1.0}, "distance_scale is -1.0.*above 0"),
        ({"top_fraction": 0.0}, r"top_fraction is 0.0.*\(0, 1\]"),
        ({"epsilon": -0.1}, "epsilon is -0.1.*0 or more"),
        ({"epsilon": 1.0, "sharpness": None}, "epsilon is 1.0, but an edge weighs at most 1.*lower epsilon"),
        ({"threshold": 0.99}, "epsilon is 0.6, but an edge weighs at most 0.525"),
        ({"scale_last": float("nan")}, "scale_last is nan.*finite"),
        ({"train_scale": False}, "both scales are 0.*set scale_last"),
    ],
)
def test_a_field_out_of_range_is_refused_with_the_way_out(settings, message):
    with pytest.raises(UserError, match=message):
        SparseGinConfig(**settings)


def test_the_scale_is_linear_in_depth():
    config = SparseGinConfig(scale_first=0.1, scale_last=0.5)
    assert [config.initial_scale(i, 5) for i in range(5)] == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5])
    assert config.initial_scale(0, 1) == 0.1


def test_a_width_that_heads_cannot_share_is_refused():
    with pytest.raises(UserError, match="width is 10.*among 4 attention heads.*multiple of 4"):
        SparseGinConfig(width=10, heads="each").shape(32, 4)


def test_a_config_survives_saving_and_loading(tmp_path):
    config = SparseGinConfig(layers=[2, 0], heads="mix", top_fraction=0.5, distance_scale=7.0, width=12)
    config.save_pretrained(tmp_path)
    loaded = PeftConfig.from_pretrained(tmp_path)
    assert isinstance(loaded, SparseGinConfig)
    assert loaded.layers == [0, 2] and loaded.rule() == config.rule() and loaded.width == 12


def test_the_method_is_one_ordinary_member_of_peft_type():
    member = add_peft_type("sparse_gin")
    llmctl.gin.register()
    assert member is PeftType.SPARSE_GIN is PeftType("SPARSE_GIN") and member == "SPARSE_GIN"
    assert list(PeftType).count(member) == 1


def test_importing_the_package_loads_no_torch():
    code = "import sys, llmctl.gin; sys.exit('torch' in sys.modules or 'peft' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'DenseGin'"):
        llmctl.gin.DenseGin  # noqa: B018

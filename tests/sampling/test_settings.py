"""One engine section and one sampling section for all recipes, with the keys and defaults of old."""

import pytest
from pydantic import ValidationError

from llmctl.sampling.settings import EngineSettings, SamplingSettings


def keys(model):
    schema = model.model_json_schema()
    return {name: field.get("default") for name, field in schema["properties"].items()}


def test_keys_and_defaults_are_those_that_recipes_use():
    assert keys(EngineSettings) == {"engine": "auto", "options": {}}
    assert keys(SamplingSettings) == {
        "temperature": 0.7,
        "top_p": 1.0,
        "max_tokens": 256,
        "window": None,
        "retry": None,
    }


@pytest.mark.parametrize("bad", [{"temperature": -1}, {"top_p": 0}, {"max_tokens": 0}, {"window": 0}])
def test_values_out_of_range_are_refused(bad):
    with pytest.raises(ValidationError):
        SamplingSettings(**bad)


def test_rise_and_msr_use_the_same_sections():
    from llmctl.msr.settings import ItemSummarySettings
    from llmctl.rise.recipe import RiseRecipe

    assert RiseRecipe.model_fields["sampler"].annotation is EngineSettings
    assert RiseRecipe.model_fields["sampling"].annotation is SamplingSettings
    assert ItemSummarySettings.model_fields["sampler"].annotation is EngineSettings

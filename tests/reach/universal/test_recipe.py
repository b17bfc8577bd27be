import pytest

from llmctl.reach.universal.recipe import ControlSettings, OptimizeRecipe, PairSettings


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "nothing is given, but the pairs come from exactly one of"),
        ({"path": "a", "task": "b"}, "path and task is given"),
        ({"task": "t", "held_out_path": "a"}, "it goes with path only"),
        ({"path": "a", "prompt": "x"}, "it must hold {question}"),
        ({"path": "a", "reply": "x"}, "it must hold {answer}"),
        ({"task": "t", "answer": "x"}, "it must be answer or solution"),
    ],
)
def test_a_source_that_does_not_fit_is_refused(content, message):
    with pytest.raises(ValueError, match=message):
        PairSettings.model_validate(content)


def test_a_template_goes_with_its_position():
    with pytest.raises(ValueError, match="position template needs a template"):
        ControlSettings(position="template")
    with pytest.raises(ValueError, match="in any message"):
        ControlSettings(position="template", template=({"role": "user", "content": "{control}"},))


def test_a_baseline_is_another_method():
    with pytest.raises(ValueError, match="baseline and search.method are both 'gcg'"):
        OptimizeRecipe.model_validate({"data": {"path": "a"}, "baseline": "gcg"})

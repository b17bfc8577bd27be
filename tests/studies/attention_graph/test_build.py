"""The graph of a layer, built from a model and a text."""

import pytest

from llmctl.errors import UserError
from llmctl.studies.attention_graph import MAX_TOKENS, view_graph


def test_without_an_adapter_the_graph_is_that_of_the_default_settings(tiny_model):
    view = view_graph(str(tiny_model), "tom and tim", 1, strongest=3)
    assert view.tokens == list("tom and tim") and view.adapter is None and view.graphs == 1
    assert set(view.scales.values()) == {0.0} and len(view.edges) <= 3
    assert all(edge.sender < edge.receiver for edge in view.edges)
    assert view.in_degrees[0] == 0 and view.out_degrees[-1] == 0
    assert sum(view.in_degrees) == sum(view.out_degrees)


@pytest.mark.parametrize("text", ["x", "x" * (MAX_TOKENS + 1)])
def test_a_text_of_too_few_or_too_many_tokens_is_refused(tiny_model, text):
    with pytest.raises(UserError, match=f"the text has {len(text)} tokens, but 2 to {MAX_TOKENS} are needed"):
        view_graph(str(tiny_model), text, 0)


def test_a_layer_that_the_model_does_not_have_is_refused(tiny_model):
    with pytest.raises(UserError, match="--layer is 9, but there is a graph at layers 0 to 1: choose one"):
        view_graph(str(tiny_model), "abc", 9)

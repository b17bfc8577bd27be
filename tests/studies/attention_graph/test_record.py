"""The graph as plain values."""

import json

from llmctl.studies.attention_graph import show_token

from .graphs import VIEW


def test_the_keys_of_the_file_stay_what_they_were():
    plain = json.loads(json.dumps(VIEW.to_dict()))
    assert list(plain) == [
        "layer",
        "tokens",
        "adjacency",
        "hears",
        "heard_by",
        "edges",
        "density",
        "mean_distance",
        "scales",
        "graphs",
        "adapter",
    ]
    assert plain["edges"][0] == {"hears": 2, "heard": 1, "text": ["$", " "], "weight": 0.8}
    assert plain["scales"] == {"0": 0.0, "1": 0.5}


def test_spaces_and_line_breaks_of_a_token_are_shown():
    assert [show_token(token) for token in (" a", "\n", "")] == ["·a", "↵", "∅"]

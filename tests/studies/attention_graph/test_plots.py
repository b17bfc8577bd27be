"""Plots of a graph, and the numbers beside them."""

import json

import pytest

from llmctl.studies.attention_graph import FORMATS, write_plots

from .graphs import VIEW


@pytest.mark.parametrize("form", FORMATS)
def test_plots_are_the_same_bytes_each_time_and_the_numbers_are_beside_them(tmp_path, form):
    first, second = (write_plots(VIEW, tmp_path / name, form) for name in ("one", "two"))
    assert [path.name for path in first] == [
        f"layer-1-{name}.{form}" for name in ("adjacency", "degrees", "scales")
    ]
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]
    assert json.loads((tmp_path / "one/layer-1.json").read_text()) == VIEW.to_dict()

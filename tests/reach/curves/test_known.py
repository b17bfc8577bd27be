import json

import pytest

from llmctl.errors import UserError
from llmctl.reach.curves.known import curve_of_pairs, known_curve, published_names
from tests.reach.curves.build import make_pair


def test_a_published_curve_has_the_rates_and_intervals_of_its_pairs():
    curve = known_curve("falcon-7b")
    assert "falcon-7b" in published_names()
    assert curve.at(0) == pytest.approx(1 - 0.4208) and curve.at(5) is None
    assert all(
        low < value < high for low, value, high in zip(curve.lows, curve.values, curve.highs, strict=True)
    )
    assert curve.n == 5000 and curve.clusters is None


def test_a_curve_of_pairs_and_of_a_run_agree(tmp_path):
    curve = curve_of_pairs("run", [make_pair(0, 0).pair(), make_pair(1, 1).pair(), make_pair(2, None).pair()])
    assert (curve.ks, curve.n, curve.clusters) == ((0, 1), 3, 3)
    points = zip(curve.ks, curve.values, curve.lows, curve.highs, strict=True)
    epsilon = {str(k): {"value": v, "low": lo, "high": hi, "n": 3, "clusters": 3} for k, v, lo, hi in points}
    (tmp_path / "run").mkdir()
    (tmp_path / "run/metrics.json").write_text(json.dumps({"epsilon": epsilon}))
    assert known_curve(str(tmp_path / "run")) == curve


def test_anything_else_is_refused(tmp_path):
    with pytest.raises(UserError, match="no published curve"):
        known_curve("nothing")
    (tmp_path / "metrics.json").write_text("{}")
    with pytest.raises(UserError, match="is no finished curve"):
        known_curve(str(tmp_path))

import pytest

from llmctl.reach.curves import recheck_run as module
from llmctl.reach.curves.recheck import Recheck
from llmctl.reach.curves.recheck_run import recheck_curve, recheck_marks
from llmctl.reach.curves.recipe import CurveRecipe
from llmctl.runs import Run
from tests.reach.curves.build import make_pair

RESULTS = [make_pair(number, 1 if number < 3 else None).result for number in range(4)]
RECIPE = CurveRecipe.model_validate({"recheck": ["bfloat16"]})


class FakeChecker:
    """Holds every witness but that of pair 1, and notes what it was given."""

    seen: list[list[str]] = []

    def __init__(self, recipe, place):
        self.place = place

    def check(self, results):
        self.seen.append([result.id for result in results])
        return [Recheck(r.id, f"fake {self.place}", r.id != "1/0", (3,)) for r in results]

    def close(self):
        self.seen.append(["closed"])


@pytest.fixture(autouse=True)
def fake(monkeypatch):
    monkeypatch.setattr(module, "_Checker", FakeChecker)
    monkeypatch.setattr(FakeChecker, "seen", [])


def test_every_witness_is_checked_once_over_all_starts(tmp_path):
    with Run.open(tmp_path / "run", RECIPE, "reach curve") as run:
        recheck_curve(run, RECIPE, RESULTS[:2], quiet=True)
        recheck_curve(run, RECIPE, RESULTS, quiet=True)
        recheck_curve(run, RECIPE, RESULTS, quiet=True)
        marks = recheck_marks(run)
    assert FakeChecker.seen == [["0/0", "1/0"], ["closed"], ["2/0"], ["closed"]]
    assert marks == {
        "0/0": {"fake bfloat16": True},
        "1/0": {"fake bfloat16": False},
        "2/0": {"fake bfloat16": True},
    }

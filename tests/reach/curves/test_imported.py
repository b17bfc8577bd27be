import csv
import json

import pytest

from llmctl.errors import UserError
from llmctl.reach.curves.imported import ImportRecipe, import_curves, imported_table
from llmctl.reach.curves.published import COLUMNS


def write(path, rows):
    with path.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(COLUMNS)
        for number, method, control, is_correct in rows:
            table.writerow(
                [f"[{number}]", "[3]", 2.0, method, json.dumps(control), len(control), 1.0, is_correct]
            )
    return path


def test_a_file_becomes_a_curve_a_table_and_json(tmp_path):
    path = write(tmp_path / "run.csv", [(1, "base", [], True), (2, "gcg", [7], True), (3, "gcg", [8], False)])
    found = import_curves(ImportRecipe(paths=(path,)))
    (curve,) = found.values()
    assert (curve.pairs, curve.states) == (3, 3)
    assert [(point.at, round(point.value, 3)) for point in curve.points] == [(0, 0.667), (1, 0.333)]
    entry = json.loads(json.dumps(curve.to_dict()))
    assert entry["epsilon"]["1"]["methods"] == {"gcg": 1} and "at" not in entry["epsilon"]["1"]
    assert curve.known().at(1) == pytest.approx(1 / 3)
    assert [row[1] for row in imported_table(found).rows] == [0, 1]


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match="no CSV file"):
        import_curves(ImportRecipe(paths=(tmp_path / "none.csv",)))

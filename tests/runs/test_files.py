import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from llmctl.errors import UserError
from llmctl.runs.files import disk_error, read_json, to_json, write_json, write_text
from llmctl.runs.stats import Estimate


def test_a_file_is_replaced_as_a_whole_and_nothing_is_left_beside_it(tmp_path):
    path = tmp_path / "a.txt"
    write_text(path, "old")
    write_text(path, "new é")
    assert path.read_text(encoding="utf-8") == "new é"
    assert os.listdir(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("name", ["write", "fsync", "replace"])
def test_a_full_disk_leaves_the_old_file_and_nothing_half_written(tmp_path, monkeypatch, name):
    path = tmp_path / "metrics.json"
    write_json(path, {"n": 1})

    def fail(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, name, fail)
    with pytest.raises(UserError, match=r"cannot write .*metrics.json: the disk is full; free some space"):
        write_json(path, {"n": 2})
    assert read_json(path) == {"n": 1}
    assert os.listdir(tmp_path) == ["metrics.json"]


def test_numpy_paths_and_estimates_become_plain_json():
    value = {
        "a": np.float32(0.5),
        "b": np.arange(2),
        "c": Path("x"),
        "d": Estimate(0.5, None, None, 1),
        "e": (1,),
    }
    assert json.loads(to_json(value)) == {
        "a": 0.5,
        "b": [0, 1],
        "c": "x",
        "d": {"value": 0.5, "low": None, "high": None, "n": 1},
        "e": [1],
    }


@pytest.mark.parametrize(
    ("value", "place"),
    [
        ({"a": {"b": [1.0, float("inf")]}}, r"a\.b\[1\] = inf"),
        ({"rate": Estimate(float("nan"), None, None, 1)}, r"rate\.value = nan"),
        ({"x": np.array([0.0, np.nan])}, r"x\[1\] = nan"),
        (float("nan"), "the value = nan"),
    ],
)
def test_what_json_can_not_hold_is_refused_with_its_place(value, place):
    with pytest.raises(ValueError, match=f"{place} is not a finite number"):
        to_json(value)


def test_an_object_of_no_known_type_is_refused():
    with pytest.raises(ValueError, match="a set"):
        to_json({"a": {1}})


def test_broken_json_is_refused_with_its_line(tmp_path):
    path = tmp_path / "a.json"
    path.write_text('{\n"a": }')
    with pytest.raises(UserError, match="is not valid JSON .*line 2"):
        read_json(path)


def test_an_unknown_disk_error_keeps_the_systems_words():
    error = disk_error(OSError(errno.EIO, "Input/output error"), "write x")
    assert str(error) == "cannot write x: Input/output error; check the disk and run the same command again"


UNPRIVILEGED = """
import os, sys
from pathlib import Path
from llmctl.runs.recipe import Recipe
from llmctl.errors import UserError
from llmctl.runs.run import Run
if os.geteuid() == 0:
    os.setuid(65534)  # root may write anywhere: become somebody else
try:
    Run.open(Path(sys.argv[1]), Recipe(), "demo")
except UserError as error:
    print(error)
"""


def test_a_folder_that_may_not_be_written_is_refused_in_one_line(tmp_path):
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o555)
    for folder in (tmp_path, *tmp_path.parents[:2]):
        folder.chmod(0o755)  # pytest keeps its folders to their owner
    done = subprocess.run(
        [sys.executable, "-c", UNPRIVILEGED, str(closed / "run")], capture_output=True, text=True, check=True
    )
    assert done.stdout == (
        f"cannot make the folder {closed / 'run'}: permission is denied; "
        "choose a place that you may write to, or change its permissions\n"
    )

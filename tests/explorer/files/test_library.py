import shutil
from concurrent.futures import ThreadPoolExecutor

import pytest

from llmctl.explorer.files.library import Library, RunNotFound
from llmctl.explorer.files.pair_index import PairIndex


def test_a_run_that_is_removed_after_it_was_listed_is_left_out(tmp_path):
    for name in ("kept", "removed"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "manifest.json").write_text("{}")
        (tmp_path / name / "recipe.yaml").write_text("kind: rise\n")
    library = Library(tmp_path)
    assert [run["name"] for run in library.runs()] == ["kept", "removed"]
    shutil.rmtree(tmp_path / "removed")
    assert [run["name"] for run in library.runs()] == ["kept"]


def make_run(folder):
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text("{}")
    (folder / "recipe.yaml").write_text("kind: rise\n")


def test_a_run_that_was_just_made_is_listed_at_once(tmp_path):
    library = Library(tmp_path)
    assert library.runs() == [] and library.model_folders() == []
    make_run(tmp_path / "new")
    assert [run["name"] for run in library.runs()] == ["new"]


@pytest.mark.parametrize("name", ["nowhere", "../outside", "/etc", "a\0b", "circle", "x" * 5000])
def test_what_is_not_in_the_folder_gets_one_answer(tmp_path, name):
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    with pytest.raises(RunNotFound, match="is not in the runs folder"):
        Library(tmp_path).inside(name)


def test_a_curve_is_indexed_once_however_many_ask_at_a_time(tmp_path, monkeypatch):
    make_run(tmp_path / "curve")
    (tmp_path / "curve" / "pairs.jsonl").write_text('{"verdict": "reached", "k": 1}\n' * 100)
    made = []

    class Counted(PairIndex):
        def __init__(self, path):
            made.append(path)
            super().__init__(path)

    monkeypatch.setattr("llmctl.explorer.files.library.PairIndex", Counted)  # looked up when a file is read
    library = Library(tmp_path)
    with ThreadPoolExecutor(8) as pool:
        totals = list(pool.map(lambda _: library.pairs("curve").total, range(16)))
    assert totals == [100] * 16 and len(made) == 1

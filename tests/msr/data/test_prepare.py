import json
from itertools import chain

import pytest

from llmctl.errors import UserError
from llmctl.msr.data.prepare import open_prepared, prepare_data
from llmctl.msr.data.readers import FilePair
from llmctl.msr.evaluation.metrics import chance_levels
from llmctl.runs import Run
from tests.msr.made_data import recipe_of, write_files


def prepared_in(folder, recipe):
    with Run.open(folder, recipe, "msr prepare") as run:
        return prepare_data(run, recipe)


def test_every_user_is_in_one_split_and_the_last_item_is_the_target(tmp_path):
    files = write_files(tmp_path / "data")
    found = prepared_in(tmp_path / "run", recipe_of(files))
    assert [found.users(name) for name in ("train", "valid", "test")] == [48, 6, 6]
    users = [one.user for name in ("train", "valid", "test") for one in found.sequences(name)]
    assert len(users) == len(set(users)) == 60
    wholes = {one.user: one for one in found.sequences("test")}
    for history, candidates in found.cases("test"):
        whole = wholes[history.user]
        assert history.items == whole.items[:-1] and candidates.target == whole.items[-1]
        assert list(whole.timestamps) == sorted(whole.timestamps)
        numbers = [int(item[1:]) for item in whole.items]
        assert all((b - a) % 40 == 1 for a, b in zip(numbers, numbers[1:], strict=False))
    known = {item.id: item for item in found.items()}
    assert known["i3"].title == "round thing 3" and known["i3"].image is None
    assert set(chain.from_iterable(one.items for one in found.sequences("train"))) <= set(known)
    assert found.facts["chance"] == pytest.approx(chance_levels(21))


def test_the_same_files_give_the_same_hashes_and_other_ones_do_not(tmp_path):
    files = write_files(tmp_path / "data")
    first = prepared_in(tmp_path / "a", recipe_of(files))
    again = prepared_in(tmp_path / "b", recipe_of(files))
    assert (first.data_version, first.candidate_hash) == (again.data_version, again.candidate_hash)
    for number, other in enumerate(
        (recipe_of(files, seed=1), recipe_of(files, split={"max_test": 3}), recipe_of(files, seed=0))
    ):
        if number == 2:  # one title differs
            text = (files / "items.csv").read_text()
            (files / "items.csv").write_text(text.replace("round thing 3,", "round thing three,"))
        found = prepared_in(tmp_path / f"c{number}", other)
        assert found.data_version != first.data_version and found.candidate_hash != first.candidate_hash


def test_another_draw_of_lists_leaves_the_data_version(tmp_path):
    files = write_files(tmp_path / "data")
    first = prepared_in(tmp_path / "a", recipe_of(files))
    found = prepared_in(tmp_path / "b", recipe_of(files, candidates={"negatives": 5}))
    assert found.data_version == first.data_version and found.candidate_hash != first.candidate_hash


def test_lists_of_another_run_serve_where_the_data_is_the_same(tmp_path):
    files = write_files(tmp_path / "data")
    first = prepared_in(tmp_path / "a", recipe_of(files, candidates={"negatives": 7}))
    given = {"candidates": {"path": tmp_path / "a/data/candidates.parquet"}}
    found = prepared_in(tmp_path / "b", recipe_of(files, **given))
    assert found.candidate_hash == first.candidate_hash and found.facts["negatives"] == 7
    with pytest.raises(UserError, match=f"{first.data_version}, but the data here has version"):
        prepared_in(tmp_path / "c", recipe_of(files, split={"max_valid": 2}, **given))


def test_lists_of_other_data_are_refused(tmp_path):
    first = prepared_in(tmp_path / "a", recipe_of(write_files(tmp_path / "data")))
    other = write_files(tmp_path / "other", seed=1)
    given = {"candidates": {"path": tmp_path / "a/data/candidates.parquet"}}
    with pytest.raises(UserError, match=f"version {first.data_version}, but the data here has"):
        prepared_in(tmp_path / "b", recipe_of(other, **given))


def test_a_prepared_run_needs_its_files_no_more(tmp_path):
    files = write_files(tmp_path / "data")
    first = prepared_in(tmp_path / "run", recipe_of(files))
    recipe = recipe_of(files)
    (files / "interactions.csv").unlink()
    assert prepared_in(tmp_path / "run", recipe).facts == first.facts
    assert open_prepared(tmp_path / "run").candidate_hash == first.candidate_hash


def test_killed_at_any_time_a_second_start_prepares_the_same(tmp_path, run_and_kill, monkeypatch):
    files = write_files(tmp_path / "data")
    recipe = recipe_of(files)
    whole = prepared_in(tmp_path / "whole", recipe)
    slow = FilePair.items

    def items(self):
        import time

        for item in slow(self):
            time.sleep(0.005)
            yield item

    monkeypatch.setattr(FilePair, "items", items)
    for name in ("manifest.json", "data"):
        folder = tmp_path / f"killed-{name}"
        assert run_and_kill(lambda folder=folder: prepared_in(folder, recipe), (folder / name).exists)
        assert not (folder / "data/prepared.json").exists()
        assert prepared_in(folder, recipe).facts == whole.facts
        assert not list(folder.glob("data/.*"))


def test_changed_lists_in_a_run_are_refused(tmp_path):
    files = write_files(tmp_path / "data")
    prepared_in(tmp_path / "run", recipe_of(files))
    facts = json.loads((tmp_path / "run/data/prepared.json").read_text())
    facts["candidate_hash"] = "0" * 64
    (tmp_path / "run/data/prepared.json").write_text(json.dumps(facts))
    with pytest.raises(UserError, match="but the run was prepared with 000"):
        open_prepared(tmp_path / "run")
    with pytest.raises(UserError, match="has no prepared data"):
        open_prepared(tmp_path)


def test_a_split_by_time_needs_times(tmp_path):
    (tmp_path / "p.tsv").write_text("1\t2 3\n")
    (tmp_path / "t.csv").write_text("item,title\n2,a\n3,b\n")
    data = {"format": "microlens", "interactions": tmp_path / "p.tsv", "items": tmp_path / "t.csv"}
    with pytest.raises(UserError, match="microlens has no times"):
        prepared_in(tmp_path / "run", recipe_of(tmp_path, data=data, split={"by": "time"}))

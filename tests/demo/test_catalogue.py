import csv
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from llmctl.demo import ORACLES, DemoSettings, make_demo, open_demo, oracle_scores
from llmctl.demo.attributes import COLOURS, PATTERNS
from llmctl.demo.oracles import draw_lists, measure_oracles
from llmctl.errors import UserError
from llmctl.msr.data.prepare import prepare_data
from llmctl.msr.evaluation.bounds import bounds_of_run, measure_bounds, read_bounds
from llmctl.msr.evaluation.metrics import rank_counts, user_metrics
from llmctl.runs import Run
from tests.msr.made_data import recipe_of

SMALL = DemoSettings(items=128, users=40, size=32)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return make_demo(tmp_path_factory.mktemp("demo") / "data", SMALL, quiet=True)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """As many items and users as by default; tiny pictures, which play no part."""
    return make_demo(tmp_path_factory.mktemp("demo") / "data", DemoSettings(size=16), quiet=True)


def files(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_seed_gives_the_same_files_anywhere_and_another_seed_others(small, tmp_path):
    again = make_demo(tmp_path / "again", SMALL, quiet=True)
    assert files(again.folder) == files(small.folder)
    other = make_demo(tmp_path / "other", DemoSettings(items=128, users=40, size=32, seed=1), quiet=True)
    assert other.looks != small.looks and other.users != small.users


def test_what_is_there_is_taken_and_other_settings_are_refused(small):
    before = {path: path.stat().st_mtime_ns for path in small.folder.rglob("*")}
    assert make_demo(small.folder, SMALL, quiet=True) == small
    assert {path: path.stat().st_mtime_ns for path in small.folder.rglob("*")} == before
    with pytest.raises(UserError, match="other settings: choose another folder"):
        make_demo(small.folder, DemoSettings(items=128, users=41, size=32))


def test_a_stopped_start_is_made_whole(small, tmp_path):
    stopped = tmp_path / "stopped"
    (stopped / "pictures").mkdir(parents=True)
    (stopped / "pictures/i0000.png").write_bytes(b"torn")
    with pytest.raises(UserError, match="holds no demo data"):
        open_demo(stopped)
    assert files(make_demo(stopped, SMALL, quiet=True).folder) == files(small.folder)


def test_a_folder_with_other_files_is_refused(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(UserError, match="'thesis.txt' is there"):
        make_demo(tmp_path, SMALL)


def test_too_few_items_are_refused():
    with pytest.raises(UserError, match="items is 10, but the demo needs 64 or more"):
        DemoSettings(items=10)


def test_titles_are_unique_and_tell_the_category_alone(small):
    rows = list(csv.DictReader((small.folder / "items.csv").open()))
    assert len({row["title"] for row in rows}) == 128
    for row in rows:
        words = row["title"].lower().split()
        assert words[-1] == small.looks[row["item"]].category
        assert not set(words) & {*COLOURS, *PATTERNS}


def test_no_look_is_rarer_than_another(whole):
    counts = Counter((look.colour, look.category) for look in whole.looks.values())
    assert set(counts.values()) == {384 // 64}


def test_users_follow_their_phases_and_end_in_the_latest(small):
    for user in small.users.values():
        colours = [small.looks[item].colour for item in user.items]
        assert colours[-1] == user.latest_colour == user.phases[-1].colour
        assert len(set(user.items)) == len(user.items) == len(user.timestamps)
        assert list(user.timestamps) == sorted(user.timestamps)
        assert len({phase.colour for phase in user.phases}) == len(user.phases) == 3
        for phase in user.phases:
            for place in range(phase.start, phase.start + phase.length):
                assert colours[place] == phase.colour or place in user.strays


def test_a_user_does_not_depend_on_who_else_there_is(small, tmp_path):
    more = make_demo(tmp_path / "more", DemoSettings(items=128, users=50, size=32), quiet=True)
    assert {name: more.users[name] for name in small.users} == small.users


def auc(lists, scores):
    return np.mean(user_metrics(rank_counts(scores, np.array([one.labels for one in lists])))["auc"])


def test_pictures_decide_titles_do_not_and_drift_matters(whole):
    lists = draw_lists(whole)
    latest, average, titles = (auc(lists, oracle_scores(whole, name, lists)) for name in ORACLES)
    assert latest > 0.94  # of 8 colours, 1/8 of the negatives tie: 1 - 1/16, and categories break some ties
    assert 0.55 < titles < 0.65  # 0.7 * 0.75 + 0.3 * 0.25 = 0.6 with 4 of 8 favourites
    assert average < 0.8  # two earlier colours lie above: 1 - 2/8 - 1/16 where no stray is met


def test_popularity_is_near_chance(whole):
    users = list(whole.users.values())
    lists = draw_lists(whole)
    aucs = []
    for part in (0, 1):  # counted on one half of the users, measured on the other
        counts = Counter(item for user in users[part::2] for item in user.items)
        others = lists[1 - part :: 2]
        aucs.append(auc(others, np.array([[counts[item] for item in one.items] for one in others])))
    assert abs(np.mean(aucs) - 0.5) < 0.05


def test_prepare_reads_what_is_written(small, tmp_path):
    recipe = recipe_of(small.folder, filters={"item_core": 1}, candidates={"negatives": 5})
    with Run.open(tmp_path / "run", recipe, "msr prepare", False) as run:
        prepared = prepare_data(run, recipe)
        facts = prepared.facts
        assert facts["untitled"] == facts["without_image"] == 0 and facts["users"]["test"] == 4
        cases = list(prepared.cases("test"))
        items = list(prepared.items())
    for history, candidates in cases:
        user = small.users[history.user]
        assert (*history.items, candidates.target) == user.items
    assert all(item.image and item.image.endswith(f"pictures/{item.id}.png") for item in items)
    lists = [one for _, one in cases]
    best = auc(lists, oracle_scores(small, "oracle: latest taste", lists))
    assert best > 0.8
    table = bounds_of_run(recipe.data.interactions, lists)
    assert "4 users, 5 negatives each" in table.caption and f"{best:.3f}" in table.rows[0][1]


def test_the_file_of_bounds_gives_the_oracles_metrics_to_the_last_digit(small):
    lists = draw_lists(small)
    assert measure_bounds(read_bounds(small.bounds, lists), lists) == measure_oracles(small, lists)


def test_a_folder_from_before_gets_its_file_of_bounds(small, tmp_path):
    folder = make_demo(tmp_path / "older", SMALL, quiet=True).folder
    (folder / "bounds.parquet").unlink()
    make_demo(folder, SMALL, quiet=True)
    assert files(folder) == files(small.folder)


def test_bounds_are_given_for_the_demos_own_users_and_items_alone(small, tmp_path):
    lists = draw_lists(small)
    strange = [replace(lists[0], items=("other", *lists[0].items[1:]))]
    assert bounds_of_run(small.interactions, strange) is None
    assert bounds_of_run(tmp_path / "interactions.csv", lists) is None

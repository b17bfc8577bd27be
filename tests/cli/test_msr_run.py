"""`llmctl msr run` and its phases, `show-user` and `recommend`, on tiny random models."""

import json

import pytest

from tests.msr.runs import tiny_recipe, tiny_world, write_recipe

ONE_ARM = {"arms": {"told": {}, "titles": {"users": {"mode": "none"}, "recommender": {"variant": "text"}}}}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return tiny_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def recipe(world):
    return str(write_recipe(world / "r.yaml", tiny_recipe(world, **ONE_ARM)))


@pytest.fixture(scope="module")
def folder(world):
    return world / "run"


def test_a_plan_names_arms_models_and_tokens_and_changes_nothing(llmctl, recipe, tmp_path):
    done = llmctl("msr", "run", recipe, "--dry-run", "--run", str(tmp_path / "run"))
    assert done.code == 0 and not (tmp_path / "run").exists()
    for words in (
        "# arms: told, titles",
        "# told: new tokens per block of 3 items, at most: 5",
        "told-untuned",
    ):
        assert words in done.out


def test_phases_one_by_one_make_the_run(llmctl, recipe, folder):
    run = ("--run", str(folder), "--json")
    done = llmctl("msr", "train", recipe, *run)
    assert done.code == 2 and "arm told reads descriptions of items, which are not all there yet" in done.err
    items = json.loads(llmctl("msr", "summarize-items", recipe, *run).out)
    assert sum(items.values()) == 40
    done = llmctl("msr", "train", recipe, *run)
    assert done.code == 2 and "reads summaries of users, which are not all there yet" in done.err
    users = json.loads(llmctl("msr", "summarize-users", recipe, *run).out)
    assert users == {"users-told": 33}  # 11 users of 7 items before the target
    done = llmctl("msr", "eval", recipe, *run)
    assert done.code == 2 and "is not trained yet: run `llmctl msr train`" in done.err
    trained = json.loads(llmctl("msr", "train", recipe, *run).out)
    assert trained["told"]["rows"] == 20 and trained["told"]["steps"] == 5
    assert set(json.loads(llmctl("msr", "eval", recipe, *run).out)) >= {"told", "told-untuned", "titles"}
    done = llmctl("msr", "run", recipe, "--run", str(folder))
    assert done.code == 0, done.err
    for words in ("item-knn", "(exact chance)", "tuning betters told", "report.html"):
        assert words in done.out


def test_show_user_lists_the_blocks_with_their_summaries(llmctl, folder, recipe):
    if not folder.exists():
        llmctl("msr", "run", recipe, "--run", str(folder), "--json")
    user = json.loads((folder / "journal/eval-told.jsonl").read_text().splitlines()[0])["chunk"][0]["user"]
    done = llmctl("msr", "show-user", user, "--run", str(folder))
    assert done.code == 0 and f"told: user {user}" in done.out and "thing" in done.out
    items = [json.loads(line) for line in (folder / "journal/items.jsonl").read_text().splitlines()]
    said = {one["item"]: one["summary"] for line in items for one in line["chunk"]}
    blocks = json.loads(llmctl("msr", "show-user", user, "--run", str(folder), "--json").out)["told"]
    first = blocks[0]["items"][0]
    assert not said[first] or " ".join(said[first].split())[:8] in done.out
    assert [block["block"] for block in blocks] == [0, 1, 2] and len(blocks[2]["items"]) == 1
    for arguments, message in (
        (("nobody",), "user 'nobody' has no summary"),
        ((user, "--arm", "titles"), "has no summaries of users for arm titles"),
        ((user, "--arm", "x"), "--arm is 'x', but the arms of the run are told, titles"),
    ):
        done = llmctl("msr", "show-user", *arguments, "--run", str(folder))
        assert done.code == 2 and message in done.err


def test_recommend_gives_items_that_the_user_never_touched_and_the_reason(llmctl, folder, recipe):
    if not folder.exists():
        llmctl("msr", "run", recipe, "--run", str(folder), "--json")
    user = json.loads((folder / "journal/eval-told.jsonl").read_text().splitlines()[0])["chunk"][0]["user"]
    blocks = json.loads(llmctl("msr", "show-user", user, "--run", str(folder), "--json").out)["told"]
    given = ("msr", "recommend", "--user", user, "--run", str(folder), "--top", "4", "--pool", "9")
    found = json.loads(llmctl(*given, "--json").out)
    touched = {item for block in blocks for item in block["items"]}
    chosen = [one["item"] for one in found["items"]]
    assert len(chosen) == 4 and found["asked"] == 9 and not touched & set(chosen)
    assert found["preferences"] == blocks[-1]["summary"] or not blocks[-1]["summary"]
    scores = [one["yes"] for one in found["items"]]
    assert scores == sorted(scores, reverse=True) and all(0 <= score <= 1 for score in scores)
    done = llmctl(*given)
    assert f"because user {user} is known for" in done.out and "P(yes)" in done.out
    assert "said of its picture" in done.out and any(one["said"] for one in found["items"])
    titles = llmctl(*given, "--arm", "titles")
    assert titles.code == 0 and "said of its picture" not in titles.out
    done = llmctl("msr", "recommend", "--user", "nobody", "--run", str(folder))
    assert done.code == 2 and "user 'nobody' is not among the 5 training and 6 test users" in done.err
    done = llmctl("msr", "recommend", "--user", user, "--run", str(folder / "none"))
    assert done.code == 2 and "is no run: give the folder" in done.err

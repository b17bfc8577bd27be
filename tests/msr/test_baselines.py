import json
from collections import Counter

import numpy as np
import pyarrow.parquet as pq
import pytest

from llmctl.errors import UserError
from llmctl.msr.baselines import ItemIndex, make_baseline, run_baselines, score_candidates, sequence
from llmctl.msr.baselines.item_knn import ItemKNN
from llmctl.msr.baselines.popularity import Popularity
from llmctl.msr.baselines.random import Random
from llmctl.msr.baselines.text_knn import TextKNN
from llmctl.msr.data.prepare import prepare_data
from llmctl.msr.evaluation.metrics import rank_counts, user_metrics
from llmctl.msr.evaluation.scores import user_values
from llmctl.msr.types import CandidateList, Item
from llmctl.runs import Run
from tests.msr.made_data import history, recipe_of, write_files

ITEMS = [Item("a", "red ball"), Item("b", "red cube"), Item("c", "blue cube"), Item("d", "")]
LIGHT = ("random", "popularity", "item-knn", "text-knn")


TRAIN = [history("a", "b"), history("a", "b", "c"), history("a"), history("b", "c")]


def fitted(baseline):
    baseline.fit(iter(TRAIN))
    return baseline


def test_popularity_counts_and_scores_in_the_order_of_the_list():
    candidates = [CandidateList("u", ("d", "c", "a"), (0, 0, 1))]
    assert score_candidates(
        fitted(Popularity(ITEMS)), ItemIndex(ITEMS), [history("b")], candidates
    ).tolist() == [[0, 2, 3]]


def test_item_knn_is_the_sum_of_cosines():
    matrix = np.array([[item.id in one.items for item in ITEMS] for one in TRAIN], float)  # (users, items)
    together = matrix.T @ matrix
    norms = np.sqrt(np.maximum(np.diag(together), 1))
    cosines = together / np.outer(norms, norms)
    baseline = fitted(ItemKNN(ITEMS))
    for own in (["a"], ["b", "c"], ["c", "d", "unknown"], []):
        expected = cosines[:, [n for n, item in enumerate(ITEMS) if item.id in own]].sum(1)
        assert baseline.score_items(history(*own)) == pytest.approx(expected)


def test_text_knn_is_the_cosine_of_tf_idf():
    vectors = np.zeros((4, 4))  # red, ball, cube, blue
    idf = {word: np.log(5 / (1 + n)) + 1 for word, n in {"red": 2, "ball": 1, "cube": 2, "blue": 1}.items()}
    for row, item in enumerate(ITEMS):
        for word in item.title.split():
            vectors[row, list(idf).index(word)] = idf[word]
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)
    expected = vectors @ vectors[[0, 2]].mean(0)
    assert TextKNN(ITEMS).score_items(history("a", "c")) == pytest.approx(expected)
    assert TextKNN(ITEMS).score_items(history()).tolist() == [0, 0, 0, 0]


def test_text_knn_takes_vectors_of_any_model():
    def embed(texts):
        return np.array([[len(text.split()), 0.0] for text in texts])

    found = TextKNN(ITEMS, embed).score_items(history("a"))
    assert found == pytest.approx([1, 1, 1, 0])
    with pytest.raises(ValueError, match="4 finite vectors are needed"):
        TextKNN(ITEMS, lambda texts: np.zeros((1, 2)))


def test_random_is_fixed_by_seed_and_user():
    one, other = Random(ITEMS, 1), Random(ITEMS, 2)
    assert (one.score_items(history("a")) == one.score_items(history("b"))).all()
    assert (one.score_items(history("a")) != other.score_items(history("a"))).any()
    assert (one.score_items(history("a")) != one.score_items(history("a", user="v"))).any()


def test_a_candidate_outside_the_catalogue_is_an_error():
    with pytest.raises(UserError, match="candidate 'x' of user 'u' is not among the 4 items"):
        lists = [CandidateList("u", ("x", "a"), (0, 1))]
        score_candidates(fitted(Popularity(ITEMS)), ItemIndex(ITEMS), [history("a")], lists)


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    folder = tmp_path_factory.mktemp("baselines")
    recipe = recipe_of(write_files(folder / "data", users=300), baselines={"names": LIGHT})
    with Run.open(folder / "run", recipe, "msr baselines") as run:
        prepared = prepare_data(run, recipe)
        figures = run_baselines(run, recipe, prepared, quiet=True)
    return folder / "run", recipe, prepared, figures


def test_metrics_hold_every_figure_with_its_interval_and_the_hash(done):
    folder, _, prepared, _ = done
    metrics = json.loads((folder / "metrics.json").read_text())
    assert list(metrics) == list(LIGHT)
    for found in metrics.values():
        for name in ("auc", "hr@3", "hr@5", "hr@10", "mrr@5", "ndcg@5"):
            assert (
                found[name]["n"] == 30 and found[name]["low"] <= found[name]["value"] <= found[name]["high"]
            )
            assert {"value", "low", "high", "n"} <= set(found["full_ranking"][name])
        assert found["candidate_hash"] == prepared.candidate_hash
        assert found["full_ranking"]["mean_items"] == 40 - 7
    assert metrics["random"]["auc"]["low"] < 0.5 < metrics["random"]["auc"]["high"]
    assert metrics["item-knn"]["auc"]["value"] > 0.95  # users walk along neighbouring items


def test_scores_hold_every_candidate_and_give_the_figures_again(done):
    folder, _, prepared, figures = done
    rows = pq.read_table(folder / "scores.parquet").to_pylist()
    assert set(rows[0]) == {"model", "user", "item", "label", "score"}
    assert Counter(row["model"] for row in rows) == dict.fromkeys(LIGHT, 30 * 21)
    knn = [row for row in rows if row["model"] == "item-knn"]
    listed = [
        (c.user, item, label)
        for _, c in prepared.cases("test")
        for item, label in zip(c.items, c.labels, strict=True)
    ]
    assert [(row["user"], row["item"], row["label"]) for row in knn] == listed
    scores = np.array([row["score"] for row in knn]).reshape(30, 21)
    labels = np.array([row["label"] for row in knn]).reshape(30, 21)
    again = user_metrics(rank_counts(scores, labels))
    assert again["ndcg@5"].mean() == pytest.approx(figures["item-knn"]["ndcg@5"]["value"])
    with Run.open(folder, done[1], "msr baselines") as run:
        assert user_values(run, prepared, "item-knn")["auc"].tolist() == again["auc"].tolist()


def test_a_second_start_does_only_what_is_missing(done, monkeypatch):
    folder, recipe, prepared, figures = done
    monkeypatch.setattr(ItemKNN, "fit", None)  # would fail
    before = (folder / "metrics.json").read_text()
    with Run.open(folder, recipe, "msr baselines") as run:
        assert run_baselines(run, recipe, prepared, quiet=True) == json.loads(json.dumps(figures))
    assert (folder / "metrics.json").read_text() == before


def test_full_ranking_agrees_with_sorting_the_catalogue(done):
    _, recipe, prepared, figures = done
    baseline = make_baseline("item-knn", list(prepared.items()), recipe)
    baseline.fit(prepared.sequences("train"))
    hits = []
    for history_, candidates in prepared.cases("test"):
        scores = dict(
            zip([item.id for item in prepared.items()], baseline.score_items(history_), strict=True)
        )
        rest = [s for item, s in scores.items() if item not in (*history_.items, candidates.target)]
        above, tied = (
            sum(s > scores[candidates.target] for s in rest),
            sum(s == scores[candidates.target] for s in rest),
        )
        hits.append(np.mean([above + place < 3 for place in range(tied + 1)]))
    assert figures["item-knn"]["full_ranking"]["hr@3"]["value"] == pytest.approx(np.mean(hits))


def test_without_cornac_the_mistake_is_told_before_any_work(done, tmp_path, monkeypatch):
    folder = write_files(tmp_path / "data")
    recipe = recipe_of(folder, baselines={"names": ("popularity", "sasrec")})
    monkeypatch.setitem(__import__("sys").modules, "cornac", None)
    with Run.open(tmp_path / "run", recipe, "msr baselines") as run:
        prepared = prepare_data(run, recipe)
        with pytest.raises(UserError, match="need the package cornac.*pip install 'cornac"):
            run_baselines(run, recipe, prepared, quiet=True)
    assert not (tmp_path / "run/metrics.json").exists()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gru4rec", "sasrec"])
def test_sequence_models_learn_what_comes_next(tmp_path, name):
    pytest.importorskip("cornac")
    fast = {"width": 16, "epochs": 12, "batch_size": 32, "negatives": 16, "max_history": 7}
    recipe = recipe_of(write_files(tmp_path, users=300), baselines={"names": (name,), name: fast})
    state = np.random.get_state()[1].copy()
    with Run.open(tmp_path / "run", recipe, "msr baselines") as run:
        prepared = prepare_data(run, recipe)
        items = [*prepared.items(), Item("never seen", "")]
        both = []
        for _ in range(2):
            baseline = make_baseline(name, items, recipe)
            baseline.fit(prepared.sequences("train"))
            both.append(baseline)
        figures = run_baselines(run, recipe, prepared, quiet=True)
    assert (np.random.get_state()[1] == state).all()
    cases = list(prepared.cases("test"))
    index = ItemIndex(items)
    lists = [h for h, _ in cases], [c for _, c in cases]
    first, second = (score_candidates(b, index, *lists) for b in both)
    assert (first == second).all()
    assert both[0].score_items(cases[0][0])[-1] == both[0].score_items(cases[0][0]).min()
    assert len(set(both[0].score_items(history("never seen")))) == 1  # nothing known: no preference
    assert figures[name]["auc"]["value"] > 0.9


def test_the_required_version_is_the_one_of_the_extra():
    import tomllib
    from pathlib import Path

    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    assert project["project"]["optional-dependencies"]["msr"] == [sequence.REQUIREMENT]

from collections import Counter

import numpy as np
import pytest

from llmctl.errors import UserError
from llmctl.msr.data.candidates import NegativePool, draw_candidates
from llmctl.msr.data.split import LEFT_OUT, split_users
from llmctl.msr.data.store import StoredList, read_candidates, verify_candidates, write_candidates
from llmctl.msr.recipe import CandidateSettings, SplitSettings
from llmctl.msr.types import CandidateList, History

ITEMS = [f"i{n}" for n in range(30)]


def history(user, *items):
    return History(user, items, tuple(float(n) for n in range(len(items))))


def draw(sequences, seed=0, counts=None, **settings):
    settings_ = CandidateSettings(**settings)
    counts = np.ones(len(ITEMS), int) if counts is None else counts
    return list(draw_candidates(sequences, NegativePool.of(ITEMS, counts, settings_.draw), settings_, seed))


def test_a_list_holds_the_target_once_and_only_untouched_items_beside_it():
    sequences = [history(f"u{n}", *ITEMS[n % 9 : n % 9 + 6]) for n in range(50)]
    for sequence, one in zip(sequences, draw(sequences), strict=True):
        assert one.user == sequence.user and one.target == sequence.items[-1]
        assert len(set(one.items)) == 21 and sum(one.labels) == 1
        assert not (set(one.items) - {one.target}) & set(sequence.items)


def test_the_true_item_may_stand_anywhere():
    lists = draw([history(f"u{n}", "i0", "i1") for n in range(2100)])
    places = Counter(one.labels.index(1) for one in lists)
    assert len(places) == 21 and max(places.values()) < 160  # 100 each, standard deviation 10


def test_a_list_depends_on_seed_and_user_alone():
    a, b = history("a", "i1", "i2"), history("b", "i3", "i4")
    assert draw([a, b]) == draw([b, a])[::-1] == [draw([a])[0], draw([b])[0]]
    assert draw([a], seed=1) != draw([a])


def test_negatives_are_drawn_uniformly_or_by_popularity():
    counts = np.arange(1, 31)
    sequences = [history(f"u{n}", "i0", "i1") for n in range(4000)]
    for kind, expected in (("uniform", np.ones(28) / 28), ("popularity", counts[2:] / counts[2:].sum())):
        found = Counter(
            item
            for one in draw(sequences, counts=counts, draw=kind, negatives=1)
            for item, label in zip(one.items, one.labels, strict=True)
            if not label
        )
        rates = np.array([found[item] for item in ITEMS[2:]]) / 4000
        assert np.abs(rates - expected).max() < 5 * np.sqrt(expected.max() / 4000)


def test_a_catalogue_may_be_used_up_but_not_overdrawn():
    (one,) = draw([history("u", *ITEMS[:10])], draw="popularity", counts=np.r_[10**9, [1] * 29])
    assert set(one.items) == {*ITEMS[10:], "i9"}
    with pytest.raises(UserError, match="user 'u' has 19 of 30 items left .*, but 20 negatives"):
        draw([history("u", *ITEMS[:11])])


LISTS = [StoredList("test", CandidateList("u", ("a", "b"), (0, 1)))]


def test_stored_lists_come_back_with_their_hash(tmp_path):
    path = tmp_path / "c.parquet"
    hashed = write_candidates(path, LISTS, "v1")
    assert list(read_candidates(path)) == LISTS and verify_candidates(path, "v1") == hashed
    other = [StoredList("test", CandidateList("u", ("b", "a"), (1, 0)))]
    assert write_candidates(tmp_path / "d.parquet", other, "v1") != hashed


def test_lists_of_other_data_are_refused_with_both_versions(tmp_path):
    write_candidates(tmp_path / "c.parquet", LISTS, "version-a")
    with pytest.raises(UserError, match=r"data version version-a, but the data here has version version-b"):
        verify_candidates(tmp_path / "c.parquet", "version-b")


def test_changed_or_foreign_lists_are_refused(tmp_path):
    import pyarrow.parquet as pq

    path = tmp_path / "c.parquet"
    write_candidates(path, LISTS, "v")
    table = pq.read_table(path)
    changed = table.set_column(2, "items", [[["b", "a"]]]).replace_schema_metadata(table.schema.metadata)
    footer = pq.ParquetFile(path).metadata.metadata
    with pq.ParquetWriter(path, changed.schema) as writer:
        writer.write_table(changed)
        writer.add_key_value_metadata({k: v for k, v in footer.items() if not k.startswith(b"ARROW")})
    with pytest.raises(UserError, match="was changed: its lists have the hash"):
        verify_candidates(path, "v")
    pq.write_table(table.drop_columns(["labels"]).replace_schema_metadata(None), path)
    with pytest.raises(UserError, match="holds no candidate lists"):
        verify_candidates(path, "v")


def test_users_are_split_by_share_and_seed():
    times = np.arange(1000.0)
    found = split_users(times, SplitSettings(), seed=3)
    assert np.bincount(found).tolist() == [800, 100, 100]
    assert (found == split_users(times, SplitSettings(), seed=3)).all()
    assert (found != split_users(times, SplitSettings(), seed=4)).any()


def test_a_split_by_time_learns_from_nothing_that_came_after_a_test_target():
    times = np.random.default_rng(0).random(500)
    found = split_users(times, SplitSettings(by="time"), seed=0)
    assert (
        times[found == 0].max()
        <= times[found == 1].min()
        <= times[found == 1].max()
        <= times[found == 2].min()
    )


def test_test_users_may_be_limited_and_the_rest_is_not_learned_from():
    found = split_users(np.arange(1000.0), SplitSettings(max_test=30, max_valid=10), seed=0)
    assert [(found == n).sum() for n in (LEFT_OUT, 0, 1, 2)] == [160, 800, 10, 30]
    whole = split_users(np.arange(1000.0), SplitSettings(), seed=0)
    assert (whole[found == 2] == 2).all()


def test_too_few_users_for_a_split_are_an_error():
    with pytest.raises(UserError, match="4 users leave none for valid"):
        split_users(np.arange(4.0), SplitSettings(), seed=0)

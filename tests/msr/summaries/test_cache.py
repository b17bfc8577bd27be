"""The cache of summaries: found by content, bounded, shared, whole after a kill."""

import multiprocessing
import os
import signal

import pytest
from PIL import Image

from llmctl.errors import UserError
from llmctl.msr.settings import CacheSettings
from llmctl.msr.summaries import cache as summary_cache
from llmctl.msr.summaries.cache import SummaryCache, answer_key
from llmctl.sampling.types import Settings


def ask(content):
    return [{"role": "user", "content": content}]


def picture(colour):
    return [{"type": "image", "image": Image.new("RGB", (4, 4), colour)}, {"type": "text", "text": "what?"}]


def test_a_key_changes_with_everything_that_decides_the_answer_and_with_nothing_else():
    base = ({"model": "a"}, ask(picture("red")), Settings(seed=1))
    others = [
        ({"model": "b"}, *base[1:]),
        (base[0], ask(picture("blue")), base[2]),
        (base[0], ask("what?"), base[2]),
        (*base[:2], Settings(seed=2)),
        (*base[:2], Settings(seed=1, max_tokens=9)),
        (*base[:2], Settings(seed=1, temperature=0.5)),
    ]
    keys = [answer_key(*base), *(answer_key(*other) for other in others)]
    assert len(set(keys)) == len(keys)
    assert answer_key({"model": "a"}, ask(picture("red")), Settings(seed=1)) == keys[0]
    wide = [{"type": "image", "image": Image.new("RGB", (8, 2), "red")}]
    tall = [{"type": "image", "image": Image.new("RGB", (2, 8), "red")}]
    assert answer_key({}, ask(wide), Settings()) != answer_key({}, ask(tall), Settings())


def test_what_has_no_content_is_no_part_of_a_key():
    with pytest.raises(TypeError, match="a object has no content"):
        answer_key({}, ask(object()), Settings())


def test_texts_are_found_by_another_run(tmp_path):
    with SummaryCache(tmp_path / "new" / "c.sqlite", 10**6) as cache:
        assert cache.get(["a", "b"]) == {} and cache.misses == 2
        cache.put({"a": "red", "b": ""})
    with SummaryCache(tmp_path / "new" / "c.sqlite", 10**6) as again:
        assert again.get(["a", "b", "c"]) == {"a": "red", "b": ""}
        assert (again.hits, again.misses) == (2, 1)
    assert again.get(["a"]) == {}  # closed: nothing is found, and nothing fails


def test_many_keys_are_asked_in_parts(tmp_path):
    with SummaryCache(tmp_path / "c.sqlite", 10**7) as cache:
        cache.put({str(i): f"text {i}" for i in range(2500)})
        assert cache.get([str(i) for i in range(3000)]) == {str(i): f"text {i}" for i in range(2500)}


def test_the_least_recently_used_go_first(tmp_path, monkeypatch):
    clock = iter(range(1000))
    monkeypatch.setattr(summary_cache.time, "time", lambda: float(next(clock)))
    entry = 1000 + 200
    with SummaryCache(tmp_path / "c.sqlite", 10 * entry) as cache:
        for i in range(10):
            cache.put({str(i): "x" * 1000})
        assert cache.size == 10 * entry
        cache.get(["0"])
        cache.put({"new": "x" * 1000})
        assert cache.size <= 9 * entry
        assert set(cache.get([*map(str, range(10)), "new"])) == {"0", "new", *map(str, range(3, 10))}


def test_no_megabytes_is_no_cache_and_no_file(tmp_path):
    with SummaryCache.open(CacheSettings(path=tmp_path / "c.sqlite", megabytes=0)) as cache:
        cache.put({"a": "b"})
        assert cache.get(["a"]) == {} and cache.size == 0
    assert not list(tmp_path.iterdir())


def test_a_file_of_another_kind_is_refused(tmp_path):
    (tmp_path / "c.sqlite").write_text("no database at all, but long enough to look at" * 30)
    with pytest.raises(UserError, match="cannot be used .*: remove it, give another cache.path"):
        SummaryCache(tmp_path / "c.sqlite", 100)


def fill(path, start):
    with SummaryCache(path, 10**7) as cache:
        for i in range(40):
            cache.put({f"{start}-{i}": "x" * 50, f"shared-{i}": "same"})
            cache.get([f"shared-{i}"])


def test_two_processes_may_write_at_once(tmp_path):
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=fill, args=(tmp_path / "c.sqlite", n)) for n in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0, 0]
    with SummaryCache(tmp_path / "c.sqlite", 10**7) as cache:
        keys = [f"{n}-{i}" for n in (0, 1, "shared") for i in range(40)]
        assert len(cache.get(keys)) == 120


def test_a_kill_in_the_middle_of_a_write_leaves_the_cache_whole(tmp_path):
    path = tmp_path / "c.sqlite"
    with SummaryCache(path, 10**7) as cache:
        cache.put({"before": "text"})
    pid = os.fork()
    if pid == 0:
        child = SummaryCache(path, 10**7)
        with child._transaction() as connection:
            connection.execute("INSERT INTO answers VALUES ('half', 'x', 1, 0)")
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(pid, 0)
    with SummaryCache(path, 10**7) as cache:
        assert cache.get(["before", "half"]) == {"before": "text"}
        cache.put({"after": "text"})
        assert set(cache.get(["after"])) == {"after"}

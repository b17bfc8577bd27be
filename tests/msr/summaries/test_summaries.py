"""Item and user summaries: what is asked, what is kept, what is never asked again."""

import dataclasses

import pytest

from llmctl import pictures
from llmctl.errors import EngineError, UserError
from llmctl.models.tiny import make_tiny_model, make_tiny_vlm
from llmctl.msr.data.prepare import prepare_data
from llmctl.msr.settings import ItemSummarySettings, UserSummarySettings
from llmctl.msr.summaries.cache import SummaryCache
from llmctl.msr.summaries.cached_llm import CachedModel
from llmctl.msr.summaries.items import (
    DESCRIBED,
    FAILED,
    SAID_NOTHING,
    check_reads_images,
    descriptions,
    fallback_sentence,
    summarize_items,
)
from llmctl.msr.summaries.users import UserSummarizer, blocks_of, iterate_summaries, summarize_users
from llmctl.msr.summaries.wording import Wording
from llmctl.runs import Run
from llmctl.sampling.scripted import ScriptedSampler
from llmctl.sampling.settings import EngineSettings
from tests.msr.made_data import history, recipe_of, write_files, write_pictures

NO_CACHE = SummaryCache(None, 0)
ENGINE = EngineSettings()


class Book:
    """A scripted model that remembers what it was asked."""

    def __init__(self, script, cache=NO_CACHE):
        self.asked = []
        self.calls = []

        def remember(conversation, seed):
            self.asked.append(conversation)
            return script(conversation, seed)

        self.sampler = ScriptedSampler(remember)
        chat = self.sampler.chat
        self.sampler.chat = lambda conversations, how: (
            self.calls.append(len(conversations)),
            chat(conversations, how),
        )[1]
        self.asker = CachedModel("scripted", ENGINE, cache, self.sampler)


def colour_of(conversation, seed=0):
    image = conversation[0]["content"][0]["image"]
    return "a picture of {:02x}{:02x}{:02x}".format(*image.getpixel((1, 1)))


@pytest.fixture
def pictured(tmp_path):
    """A run on 40 items of which some have no picture, or a broken one."""
    folder = write_files(tmp_path / "data")
    write_pictures(folder)
    with Run.open(tmp_path / "run", (recipe := recipe_of(folder)), "test") as run:
        yield run, prepare_data(run, recipe)


def test_each_picture_is_described_once_and_the_rest_falls_back_to_text(pictured):
    run, prepared = pictured
    book = Book(colour_of)
    counts = summarize_items(run, ItemSummarySettings(chunk=7), prepared, book.asker, 0, quiet=True)
    assert counts == {
        DESCRIBED: 35,
        pictures.NO_PICTURE: 2,
        pictures.MISSING: 1,
        pictures.NO_IMAGE: 1,
        pictures.BROKEN: 1,
    }
    assert sum(book.calls) == len(book.asked) == 35 and max(book.calls) <= 7
    said = descriptions(run, prepared)
    assert said["i1"] == "a picture of 010207" and said["i36"] == "text of 36" and len(said) == 40
    said = fallback_sentence(counts)
    assert said.startswith("35 pictures described; 5 items fell back to their text (no picture named: 2, ")
    summarize_items(run, ItemSummarySettings(chunk=7), prepared, book.asker, 0, quiet=True)
    assert len(book.asked) == 35


def test_a_cut_off_journal_goes_on_where_it_was(pictured):
    run, prepared = pictured
    whole = Book(colour_of)
    summarize_items(run, ItemSummarySettings(chunk=7), prepared, whole.asker, 0, quiet=True)
    path = run.folder / "journal/items.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:3]) + lines[3][:40])  # killed while the fourth was written
    run.close()
    with Run.open(run.folder, recipe_of(run.folder.parent / "data"), "test") as again:
        rest = Book(colour_of)
        summarize_items(again, ItemSummarySettings(chunk=7), prepared, rest.asker, 0, quiet=True)
    assert path.read_bytes() == b"".join(lines) and len(rest.asked) == 35 - 3 * 7


def test_what_was_described_in_another_run_is_not_computed_again(pictured, tmp_path):
    run, prepared = pictured
    with SummaryCache(tmp_path / "c.sqlite", 10**6) as cache:
        first = Book(colour_of, cache)
        summarize_items(run, ItemSummarySettings(), prepared, first.asker, 0, quiet=True)
        with Run.open(tmp_path / "other", recipe_of(tmp_path / "data"), "test") as other:
            second = Book(colour_of, cache)
            prepare_data(other, recipe_of(tmp_path / "data"))
            summarize_items(other, ItemSummarySettings(), prepared, second.asker, 0, quiet=True)
            assert (other.folder / "journal/items.jsonl").read_bytes() == (
                run.folder / "journal/items.jsonl"
            ).read_bytes()
    assert len(first.asked) == 35 and second.asked == []


def test_a_model_that_fails_or_says_nothing_leaves_the_text(pictured):
    run, prepared = pictured

    def moody(conversation, seed):
        colour = colour_of(conversation)
        if colour.endswith("010207"):
            raise EngineError("out of order")
        return "" if colour.endswith("02040e") else colour

    counts = summarize_items(run, ItemSummarySettings(), prepared, Book(moody).asker, 0, quiet=True)
    assert (counts[FAILED], counts[SAID_NOTHING], counts[DESCRIBED]) == (1, 1, 33)
    assert descriptions(run, prepared)["i1"] == "text of 1"


def test_a_model_without_an_eye_is_refused_before_any_work(tmp_path):
    with pytest.raises(UserError, match="which takes no pictures, but items are to be described"):
        check_reads_images(str(make_tiny_model(tmp_path / "m")))
    check_reads_images(str(make_tiny_vlm(tmp_path / "v")))


def test_a_real_tiny_model_describes_pictures_the_same_way_again(pictured, tmp_path):
    run, prepared = pictured
    vlm = str(make_tiny_vlm(tmp_path / "v", initializer_range=0.3))
    with CachedModel(vlm, ENGINE, NO_CACHE) as asker:
        counts = summarize_items(run, ItemSummarySettings(max_tokens=4), prepared, asker, 0, quiet=True)
    assert counts[DESCRIBED] + counts.get(SAID_NOTHING, 0) == 35
    first = run.journal("items")
    assert len({record["summary"] for record in first}) > 1


# Users

WORDS = Wording({f"i{n}": f"thing {n}" for n in range(40)}, {"i3": "a red cup"})
HISTORIES = [
    history(*(f"i{n}" for n in range(start, start + length)), user=f"u{start}")
    for start, length in ((0, 7), (3, 2), (10, 9), (20, 3), (5, 4))
]


def retell(conversation, seed):
    """A summary that can be read back: what came before, and what came now."""
    text = conversation[0]["content"]
    items = ",".join(line.removeprefix("- thing ") for line in text.splitlines() if line.startswith("- "))
    before = text.split("like this:\n")[1].split("\n")[0] if "like this:" in text else ""
    return f"{before}|{items}" if before else items


def summarizer(script=retell, cache=NO_CACHE, **settings):
    book = Book(script, cache)
    return book, UserSummarizer(UserSummarySettings(**{"chunk": 3, **settings}), WORDS, book.asker, 0)


@pytest.fixture
def run(tmp_path):
    with Run.open(tmp_path / "run", recipe_of(write_files(tmp_path / "data")), "test") as run:
        yield run


def records_of(run, name="users-a"):
    return [{k: v for k, v in r.items() if k != "key"} for r in run.journal(name)]


def test_users_go_through_their_blocks_in_lockstep_each_from_the_summary_before(run):
    book, who = summarizer()
    summarize_users(run, "users-a", HISTORIES, 5, who, quiet=True)
    assert book.calls == [3, 2, 2, 2, 1]  # chunk of three users: 3, 1 and 3 blocks; chunk of two: 1 and 2
    found = {(r["user"], r["block"]): r["summary"] for r in records_of(run)}
    assert found["u0", 0] == "0,1,2" and found["u0", 2] == "0,1,2|3: a red cup,4,5|6"
    assert found["u10", 2] == "10,11,12|13,14,15|16,17,18" and ("u3", 1) not in found
    last = list(iterate_summaries(run.journal("users-a"), 3, [h.user for h in HISTORIES]))
    assert last == [found["u0", 2], found["u3", 0], found["u10", 2], found["u20", 0], found["u5", 1]]


def test_direct_reads_all_at_once_and_history_keeps_the_last(run):
    book, who = summarizer(mode="direct", history=4)
    summarize_users(run, "users-a", HISTORIES, 5, who, quiet=True)
    assert book.calls == [3, 2]
    assert [r["summary"] for r in records_of(run)][:2] == ["3: a red cup,4,5,6", "3: a red cup,4"]
    assert blocks_of(HISTORIES[0], UserSummarySettings(history=4)) == [("i3", "i4", "i5"), ("i6",)]


@pytest.mark.parametrize("kept", [0, 1, 2, 4])
def test_a_run_that_was_killed_between_blocks_ends_as_an_unbroken_one(run, kept, tmp_path):
    _, who = summarizer()
    summarize_users(run, "users-a", HISTORIES, 5, who, quiet=True)
    path = run.folder / "journal/users-a.jsonl"
    whole = path.read_bytes()
    path.write_bytes(b"".join(whole.splitlines(keepends=True)[:kept]) + b'{"key": "chunk')
    run.close()
    with Run.open(run.folder, recipe_of(tmp_path / "data"), "test") as again:
        book, who = summarizer()
        summarize_users(again, "users-a", HISTORIES, 5, who, quiet=True)
    assert path.read_bytes() == whole and len(book.calls) == 5 - kept


def test_a_block_that_was_summed_up_elsewhere_is_not_asked_again(run, tmp_path):
    with SummaryCache(tmp_path / "c.sqlite", 10**6) as cache:
        first, who = summarizer(cache=cache)
        summarize_users(run, "users-a", HISTORIES, 5, who, quiet=True)
        second, who = summarizer(cache=cache)
        twice = [*HISTORIES, dataclasses.replace(HISTORIES[0], user="twin")]
        summarize_users(run, "users-b", twice, 6, who, quiet=True)
        third, who = summarizer(cache=cache, temperature=0.1)
        summarize_users(run, "users-c", HISTORIES, 5, who, quiet=True)
    assert len(first.asked) == 10 and second.asked == [] and len(third.asked) == 10
    assert records_of(run, "users-b")[-1]["summary"] == records_of(run, "users-b")[5]["summary"]


def test_equal_questions_of_one_call_are_asked_once_and_answered_alike(run):
    book, who = summarizer(lambda conversation, seed: str(seed))
    twins = [dataclasses.replace(HISTORIES[3], user=name) for name in "abc"]
    summarize_users(run, "users-a", twins, 3, who, quiet=True)
    assert len(book.asked) == 1 and len({r["summary"] for r in records_of(run)}) == 1


def test_a_model_that_fails_on_a_block_leaves_the_summary_and_a_reason(run):
    def fails_on_three(conversation, seed):
        text = retell(conversation, seed)
        if text.endswith("13,14,15"):
            raise EngineError("out of order")
        return "" if text == "20,21,22" else text

    _, who = summarizer(fails_on_three)
    summarize_users(run, "users-a", HISTORIES, 5, who, quiet=True)
    found = {(r["user"], r["block"]): r for r in records_of(run)}
    assert found["u10", 1]["summary"] == "10,11,12" and found["u10", 1]["problem"] == "out of order"
    assert found["u10", 2]["summary"] == "10,11,12|16,17,18"
    assert found["u20", 0] | {"items": 0} == {
        "user": "u20",
        "block": 0,
        "items": 0,
        "summary": "",
        "problem": "model said nothing",
    }


def test_what_does_not_fit_loses_its_oldest_items_and_is_counted(run):
    _, who = summarizer(mode="direct")
    who.model.fits = lambda conversation, max_tokens: conversation[0]["content"].count("- thing") <= 3
    summarize_users(run, "users-a", HISTORIES, 5, who, quiet=True)
    found = {r["user"]: r for r in records_of(run)}
    assert (found["u0"]["summary"], found["u0"]["dropped"]) == ("4,5,6", 4) and "dropped" not in found["u3"]


def test_a_block_that_never_fits_is_skipped_with_a_reason(run):
    book, who = summarizer()
    who.model.fits = lambda conversation, max_tokens: False
    summarize_users(run, "users-a", HISTORIES[:1], 1, who, quiet=True)
    assert book.asked == [] and {r["problem"] for r in records_of(run)} == {"block does not fit"}


def test_a_real_models_context_decides_what_fits(tmp_path):
    model = str(make_tiny_model(tmp_path / "m"))  # a context of 1024
    with CachedModel(model, ENGINE, NO_CACHE) as asker:
        assert asker.fits([{"role": "user", "content": "x" * 900}], 50)
        assert not asker.fits([{"role": "user", "content": "x" * 900}], 150)

"""User summaries: what a user likes, from what the user chose (MLLM-MSR, user summarizer).

Recurrent: the history is read in blocks; each summary is made from the one before and the next block. All
users of a chunk go through their blocks in lockstep, so a block is one call of the engine. Direct: the
whole history at once. Every summary is kept with the block it was made from, so that drift can be read.

journal/users-<arm>.jsonl     a block of a chunk of users a line; of each user the items and the summary
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from llmctl.messages import Conversation
from llmctl.msr import prompts
from llmctl.msr.settings import UserSettings
from llmctl.msr.summaries.cached_llm import Asker
from llmctl.msr.types import History
from llmctl.runs import Journal, Run, progress
from llmctl.runs.chunks import cut
from llmctl.runs.timing import timed
from llmctl.sampling import Settings


@dataclass(frozen=True)
class Wording:
    """How items are put into words."""

    titles: Mapping[str, str]
    said: Mapping[str, str] = field(default_factory=dict)  # of each item beside its title; may lack items
    title_chars: int = prompts.TITLE_CHARS  # of a title at most
    text_chars: int = prompts.TEXT_CHARS  # of what is said beside it at most

    def line(self, item: str) -> str:
        """An item on one line."""
        return self._line(item, self.said.get(item, ""))

    def title(self, item: str) -> str:
        """An item's title alone, on one line."""
        return self._line(item, "")

    def _line(self, item: str, said: str) -> str:
        return prompts.item_line(self.titles[item], said, self.title_chars, self.text_chars)

    def list(self, items: Sequence[str]) -> str:
        """Items, one a line."""
        return prompts.item_list([self.line(item) for item in items])


@dataclass(frozen=True)
class Summarizer:
    """Who is asked about users, and how."""

    settings: UserSettings  # its mode is recurrent or direct
    wording: Wording
    asker: Asker  # of the language model
    seed: int  # of the run

    @property
    def sampling(self) -> Settings:
        """How summaries are sampled."""
        s = self.settings
        return Settings(temperature=s.temperature, top_p=s.top_p, max_tokens=s.max_tokens, seed=self.seed)


@dataclass
class Reader:
    """A user while the history is being read."""

    user: str
    blocks: list[tuple[str, ...]]
    summary: str = ""


def summarize_users(
    run: Run,
    name: str,
    histories: Iterable[History],
    total: int,
    summarizer: Summarizer,
    *,
    quiet: bool = False,
) -> None:
    """Sum up what users like; does only what its journal lacks.

    Args:
        run: Open.
        name: Of the journal.
        histories: What came before each user's target, always in the same order.
        total: How many.
        summarizer: Who is asked, and how.
        quiet: No progress.
    """
    book = run.journal(name)
    label = f"sum up users ({name.removeprefix('users-')})"
    with progress(total, label, "users", quiet=quiet) as bar:
        for number, chunk in enumerate(cut(histories, summarizer.settings.chunk)):
            readers = [Reader(h.user, blocks_of(h, summarizer.settings)) for h in chunk]
            _read_chunk(run, book, number, readers, summarizer)
            bar.advance(len(chunk))


def blocks_of(history: History, settings: UserSettings) -> list[tuple[str, ...]]:
    """The blocks that a history is read in; one where all is read at once."""
    items = history.items if settings.history is None else history.items[-settings.history :]
    size = settings.block if settings.mode == "recurrent" else len(items)
    return list(map(tuple, cut(items, max(size, 1))))


def _read_chunk(
    run: Run, book: Journal, number: int, readers: Sequence[Reader], summarizer: Summarizer
) -> None:
    """All blocks of a chunk of users, in lockstep; what is journalled is read back."""
    longest = max(len(reader.blocks) for reader in readers)
    keys = [block_key(number, place) for place in range(longest)]
    if keys[-1] in book:
        return
    if keys[0] in book:  # killed within the chunk: the summaries so far are needed
        last = {r["user"]: r["summary"] for r in book if r["key"] in keys}
        for reader in readers:
            reader.summary = last.get(reader.user, "")
    for place, key in enumerate(keys):
        if key not in book:
            with timed(run, f"{book.path.stem}/{key}"):
                active = [reader for reader in readers if len(reader.blocks) > place]
                book.append_many(key, read_block(active, place, summarizer))


def read_block(readers: Sequence[Reader], place: int, summarizer: Summarizer) -> list[dict[str, Any]]:
    """One block of every user, in one call; the readers hold the new summaries afterwards.

    A model that says nothing, or fails, leaves a user's summary as it was, and the record says why. Where a
    block does not fit into the context, its oldest items are left out and counted.

    Returns:
        A record a user: `user`, `block` (from 0), `items`, `summary`, and `dropped` or `problem` where there
        is something to tell.
    """
    questions = [fitting_question(reader, place, summarizer) for reader in readers]
    asked = [question for question, _ in questions if question is not None]
    answers = iter(summarizer.asker.ask(asked, summarizer.sampling) if asked else [])
    records = []
    for reader, (question, dropped) in zip(readers, questions, strict=True):
        items = reader.blocks[place]
        record: dict[str, Any] = {"user": reader.user, "block": place, "items": items}
        problem = "block does not fit" if question is None else None
        if question is not None:
            answer = next(answers)
            text = " ".join(answer.text.split())
            problem = answer.error or (None if text else "model said nothing")
            reader.summary = text or reader.summary
        record["summary"] = reader.summary
        records.append(
            record | ({"dropped": dropped} if dropped else {}) | ({"problem": problem} if problem else {})
        )
    return records


def fitting_question(reader: Reader, place: int, summarizer: Summarizer) -> tuple[Conversation | None, int]:
    """What is asked about a block, with as many of its last items as fit, and how many were left out."""
    items = reader.blocks[place]
    for dropped in range(len(items)):
        question = ask_about(items[dropped:], reader.summary, summarizer)
        if summarizer.asker.fits(question, summarizer.settings.max_tokens):
            return question, dropped
    return None, len(items)


def ask_about(items: Sequence[str], summary: str, summarizer: Summarizer) -> Conversation:
    """The question for a block: with the summary so far, where there is one."""
    settings = summarizer.settings
    template = settings.next_prompt if summary else settings.first_prompt
    text = prompts.fill(template, {"summary": summary, "items": summarizer.wording.list(items)})
    return [{"role": "user", "content": text}]


def block_key(chunk: int, place: int) -> str:
    """The name of a block of a chunk in the journal."""
    return f"chunk-{chunk}/block-{place}"


def iterate_summaries(book: Journal, chunk: int, users: Iterable[str]) -> Iterator[str]:
    """The last summary of users in the order of `summarize_users`, a chunk of them in memory at a time.

    Args:
        book: The journal; its chunks follow one another.
        chunk: Users of a chunk.
        users: In order.
    """
    lines = iter(book)
    waiting = next(lines, None)
    for number, part in enumerate(cut(users, chunk)):
        found: dict[str, str] = {}
        while waiting is not None and waiting["key"].startswith(f"chunk-{number}/"):
            found[waiting["user"]] = waiting["summary"]
            waiting = next(lines, None)
        for user in part:
            yield found.get(user, "")

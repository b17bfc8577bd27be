"""User summaries: what a user prefers, from the history (the user summarizer of MLLM-MSR).

Recurrent: the history is read in blocks, and each summary is made from the previous summary and the next
block. All users of a chunk are read in lockstep, so a block of the chunk is one call of the engine. Direct:
the whole history at once. Every summary is kept with its block, so that one can read how it changed.

journal/users-<arm>.jsonl     one UserBlock per user, a block of a chunk of users per line
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from llmctl.messages import Conversation
from llmctl.msr import prompts
from llmctl.msr.settings import UserSummarySettings
from llmctl.msr.summaries.cached_llm import CachedModel
from llmctl.msr.summaries.items import SAID_NOTHING
from llmctl.msr.summaries.wording import Wording
from llmctl.msr.types import History
from llmctl.runs import Journal, Run, progress
from llmctl.runs.chunks import cut
from llmctl.runs.timing import timed
from llmctl.sampling import Settings

TOO_LONG = "block does not fit"


@dataclass(frozen=True)
class UserBlock:
    """A block of a user's history, and the summary after it."""

    user: str
    block: int  # from 0
    items: tuple[str, ...]
    summary: str
    dropped: int = 0  # oldest items of the block that were left out, so that the prompt fits
    problem: str | None = None  # why the summary is still the previous one

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Self:
        """Read a record of the journal."""
        return cls(
            record["user"],
            record["block"],
            tuple(record["items"]),
            record["summary"],
            record.get("dropped", 0),
            record.get("problem"),
        )

    def to_record(self) -> dict[str, Any]:
        """The record of the journal; `dropped` and `problem` stand there only where there is one."""
        plain = {"user": self.user, "block": self.block, "items": self.items, "summary": self.summary}
        dropped = {"dropped": self.dropped} if self.dropped else {}
        problem = {"problem": self.problem} if self.problem else {}
        return plain | dropped | problem


@dataclass(frozen=True)
class UserSummarizer:
    """A model that summarizes users, and how it is prompted."""

    settings: UserSummarySettings  # its mode is recurrent or direct
    wording: Wording
    model: CachedModel
    seed: int

    @property
    def sampling(self) -> Settings:
        """How summaries are sampled."""
        s = self.settings
        return Settings(temperature=s.temperature, top_p=s.top_p, max_tokens=s.max_tokens, seed=self.seed)

    def conversation(self, items: Sequence[str], summary: str) -> Conversation:
        """The prompt for a block: with the summary so far, where there is one."""
        template = self.settings.next_prompt if summary else self.settings.first_prompt
        text = prompts.fill(template, {"summary": summary, "items": self.wording.list(items)})
        return [{"role": "user", "content": text}]

    def fitting_conversation(self, items: Sequence[str], summary: str) -> tuple[Conversation | None, int]:
        """The prompt with as many of the last items as fit, and the number of items left out.

        The prompt is None where not even one item fits.
        """
        for dropped in range(len(items)):
            conversation = self.conversation(items[dropped:], summary)
            if self.model.fits(conversation, self.settings.max_tokens):
                return conversation, dropped
        return None, len(items)


@dataclass
class UserState:
    """A user while the history is read block by block."""

    user: str
    blocks: list[tuple[str, ...]]
    summary: str = ""


def summarize_users(
    run: Run,
    name: str,
    histories: Iterable[History],
    total: int,
    summarizer: UserSummarizer,
    *,
    quiet: bool = False,
) -> None:
    """Summarize users; blocks that are in the journal are not summarized again.

    Args:
        run: Open.
        name: Name of the journal.
        histories: What came before each user's target; in the same order at every start.
        total: The number of histories.
        summarizer: The model, and how it is prompted.
        quiet: Show no progress.
    """
    book = run.journal(name)
    label = f"summarize users ({name.removeprefix('users-')})"
    with progress(total, label, "users", quiet=quiet) as bar:
        for number, chunk in enumerate(cut(histories, summarizer.settings.chunk)):
            states = [UserState(h.user, blocks_of(h, summarizer.settings)) for h in chunk]
            _summarize_chunk(run, book, number, states, summarizer)
            bar.advance(len(chunk))


def blocks_of(history: History, settings: UserSummarySettings) -> list[tuple[str, ...]]:
    """The blocks that a history is read in; one block where all is read at once."""
    items = history.items if settings.history is None else history.items[-settings.history :]
    size = settings.block if settings.mode == "recurrent" else len(items)
    return list(map(tuple, cut(items, max(size, 1))))


def _summarize_chunk(
    run: Run, book: Journal, number: int, states: Sequence[UserState], summarizer: UserSummarizer
) -> None:
    """Summarize all blocks of a chunk of users, in lockstep; journalled blocks are read back."""
    longest = max(len(state.blocks) for state in states)
    keys = [block_key(number, block) for block in range(longest)]
    if keys[-1] in book:
        return
    if keys[0] in book:  # killed within the chunk: the summaries so far are needed
        last = {record["user"]: record["summary"] for record in book if record["key"] in keys}
        for state in states:
            state.summary = last.get(state.user, "")
    for block, key in enumerate(keys):
        if key not in book:
            with timed(run, f"{book.path.stem}/{key}"):
                active = [state for state in states if len(state.blocks) > block]
                book.append_many(key, [one.to_record() for one in summarize_block(active, block, summarizer)])


def summarize_block(states: Sequence[UserState], block: int, summarizer: UserSummarizer) -> list[UserBlock]:
    """Summarize one block of every user, in one call; the states hold the new summaries afterwards.

    Where the model returns nothing or fails, a user's summary stays as it was, and the result has the
    reason. Where a block does not fit into the context, its oldest items are left out and counted.
    """
    prompted = [summarizer.fitting_conversation(state.blocks[block], state.summary) for state in states]
    conversations = [conversation for conversation, _ in prompted if conversation is not None]
    answers = iter(summarizer.model.complete(conversations, summarizer.sampling) if conversations else [])
    found = []
    for state, (conversation, dropped) in zip(states, prompted, strict=True):
        problem: str | None = TOO_LONG
        if conversation is not None:
            answer = next(answers)
            text = " ".join(answer.text.split())
            problem = answer.error or (None if text else SAID_NOTHING)
            state.summary = text or state.summary
        found.append(UserBlock(state.user, block, state.blocks[block], state.summary, dropped, problem))
    return found


def block_key(chunk: int, block: int) -> str:
    """The journal key of a block of a chunk."""
    return f"chunk-{chunk}/block-{block}"


def iterate_summaries(book: Journal, chunk: int, users: Iterable[str]) -> Iterator[str]:
    """The last summary of each user; a chunk of users is in memory at a time.

    Args:
        book: The journal of `summarize_users`, whose chunks follow one another.
        chunk: Users per chunk.
        users: In the order in which they were summarized.
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

"""Rows that teach a small language model to sum up preferences: other simulated users, known taste.

The embedded model is too small to write a usable summary by itself, so the demo's writer is taught. It is a
stand-in for the model of 8 billion parameters in the paper. The users it learns from live in catalogues of
other seeds; half of its rows are of a whole history, half of a block with the summary before it, so that
neither way to read a history is favoured.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from llmctl.demo.catalogue import DemoSettings, deal_looks, make_titles
from llmctl.demo.users import DemoUser, simulate_user
from llmctl.messages import Conversation
from llmctl.msr import prompts
from llmctl.sampling.common import derive_seed

BLOCK = 3  # items, as in the paper


@dataclass(frozen=True)
class WritingRow:
    """A question and the summary that answers it."""

    question: str
    summary: str
    kind: str  # "direct" or "recurrent"

    @property
    def messages(self) -> Conversation:
        """As a training row has them."""
        return [{"role": "user", "content": self.question}, {"role": "assistant", "content": self.summary}]


def true_summary(user: DemoUser, length: int) -> str:
    """What is true of a user's taste after so many items: the colour now, and those before, latest first.

    Args:
        user: With known phases.
        length: Items that were read, at least 1.
    """
    colours = [phase.colour for phase in user.phases if phase.start < length][::-1]
    now = f"This user now likes {colours[0]} items."
    return now if len(colours) == 1 else f"{now} Before that: {', '.join(colours[1:])}."


@dataclass(frozen=True)
class WrittenHistory:
    """A user's history in words, and what is true at its end."""

    blocks: list[list[str]]
    colour: str  # of the latest phase
    summary: str


def held_out_histories(users: int, seed: int) -> list[WrittenHistory]:
    """Histories to measure a writer on; their users and catalogue are not those of `writing_rows`.

    Args:
        users: How many.
        seed: Any; the streams of other purposes differ at every seed.
    """
    found = []
    for user, lines in _users_in_words(users, derive_seed(seed, "catalogue held out from writing")):
        blocks = [list(lines[start : start + BLOCK]) for start in range(0, len(lines), BLOCK)]
        found.append(WrittenHistory(blocks, user.latest_colour, true_summary(user, len(lines))))
    return found


def writing_rows(users: int, seed: int) -> list[WritingRow]:
    """Rows of simulated users, as many of a whole history as of a block, in random order.

    A user's history, the target left out, is read once block by block; for each block there is a row of
    all that was read by then, too. The first block is both, and comes once for either.

    Args:
        users: How many; they and their catalogue are those of no demo data set, at any seed.
        seed: Of the rows.
    """
    rng = random.Random(derive_seed(seed, "rows to write from"))
    rows = []
    for user, lines in _users_in_words(users, derive_seed(seed, "catalogue to write from")):
        rows += _rows_of(user, lines)
    rng.shuffle(rows)
    return rows


def _users_in_words(users: int, seed: int) -> Iterator[tuple[DemoUser, list[str]]]:
    """Users of a catalogue, and what they chose before the target, an item a line."""
    looks = deal_looks(DemoSettings(seed=seed))
    titles = make_titles(looks, seed)
    for number in range(users):
        user = simulate_user(f"w{number}", looks, seed)
        yield user, [prompts.item_line(titles[item], looks[item].caption) for item in user.items[:-1]]


def _rows_of(user: DemoUser, lines: Sequence[str]) -> list[WritingRow]:
    rows, before = [], ""
    for start in range(0, len(lines), BLOCK):
        end = min(start + BLOCK, len(lines))
        summary = true_summary(user, end)
        template = prompts.NEXT_BLOCK if before else prompts.FIRST_BLOCK
        fields = {"summary": before, "items": prompts.item_list(lines[start:end])}
        rows.append(WritingRow(prompts.fill(template, fields), summary, "recurrent"))
        whole = prompts.fill(prompts.FIRST_BLOCK, {"items": prompts.item_list(lines[:end])})
        rows.append(WritingRow(whole, summary, "direct"))
        before = summary
    return rows

"""Training examples for the demo's writer: prompts for user summaries, and the true summaries.

The embedded model is too small to write usable summaries, so it is fine-tuned; the result takes the place of
the paper's model with 8 billion parameters. Its training users are simulated with other seeds and catalogues
than those of the demo data set. Half of the examples have a whole history, half a block with the summary
before it, so that neither way to read a history is favoured.
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
class WritingExample:
    """A prompt, and the summary that answers it."""

    prompt: str
    summary: str
    kind: str  # "direct" or "recurrent"

    @property
    def messages(self) -> Conversation:
        """The messages of a training example."""
        return [{"role": "user", "content": self.prompt}, {"role": "assistant", "content": self.summary}]


def true_summary(user: DemoUser, length: int) -> str:
    """The true summary after some items: the current colour, then the previous ones, the latest first.

    Args:
        user: A simulated user.
        length: The number of items read so far, at least 1.
    """
    colours = [phase.colour for phase in user.phases if phase.start < length][::-1]
    now = f"This user now likes {colours[0]} items."
    return now if len(colours) == 1 else f"{now} Before that: {', '.join(colours[1:])}."


@dataclass(frozen=True)
class WrittenHistory:
    """A user's history as prompts show it, with its true summary."""

    blocks: list[list[str]]
    colour: str  # of the latest phase
    summary: str


def held_out_histories(users: int, seed: int) -> list[WrittenHistory]:
    """Histories to evaluate a writer on; users and catalogue differ from those of `writing_rows`.

    Args:
        users: The number of users.
        seed: Any seed; training users are drawn from another random stream at every seed.
    """
    found = []
    for user, lines in _users_in_words(users, derive_seed(seed, "catalogue held out from writing")):
        blocks = [list(lines[start : start + BLOCK]) for start in range(0, len(lines), BLOCK)]
        found.append(WrittenHistory(blocks, user.latest_colour, true_summary(user, len(lines))))
    return found


def writing_rows(users: int, seed: int) -> list[WritingExample]:
    """Training examples from simulated users, in random order, as many direct ones as recurrent ones.

    A user's history without the target is read block by block. Each block gives a recurrent example, and a
    direct one with all items up to its end. For the first block these two have the same prompt.

    Args:
        users: The number of users; neither they nor their catalogue occur in a demo data set, at any seed.
        seed: Seed for users and order.
    """
    rng = random.Random(derive_seed(seed, "rows to write from"))
    rows = []
    for user, lines in _users_in_words(users, derive_seed(seed, "catalogue to write from")):
        rows += _rows_of(user, lines)
    rng.shuffle(rows)
    return rows


def _users_in_words(users: int, seed: int) -> Iterator[tuple[DemoUser, list[str]]]:
    """Users of a catalogue, with one line per item that they chose before the target."""
    looks = deal_looks(DemoSettings(seed=seed))
    titles = make_titles(looks, seed)
    for number in range(users):
        user = simulate_user(f"w{number}", looks, seed)
        yield user, [prompts.item_line(titles[item], looks[item].caption) for item in user.items[:-1]]


def _rows_of(user: DemoUser, lines: Sequence[str]) -> list[WritingExample]:
    rows, before = [], ""
    for start in range(0, len(lines), BLOCK):
        end = min(start + BLOCK, len(lines))
        summary = true_summary(user, end)
        template = prompts.NEXT_BLOCK if before else prompts.FIRST_BLOCK
        fields = {"summary": before, "items": prompts.item_list(lines[start:end])}
        rows.append(WritingExample(prompts.fill(template, fields), summary, "recurrent"))
        whole = prompts.fill(prompts.FIRST_BLOCK, {"items": prompts.item_list(lines[:end])})
        rows.append(WritingExample(whole, summary, "direct"))
        before = summary
    return rows

"""Item summaries: a model describes each picture once; items without a description fall back to their text.

journal/items.jsonl     one ItemSummary per item, a chunk of items per line
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

from llmctl.errors import UserError
from llmctl.models.description import reads_images
from llmctl.msr import prompts
from llmctl.msr.data.prepared import Journals, PreparedData
from llmctl.msr.settings import ItemSummarySettings
from llmctl.msr.summaries.cached_llm import CachedModel
from llmctl.msr.types import Item
from llmctl.pictures import read_picture
from llmctl.runs import Run, progress
from llmctl.runs.chunks import cut
from llmctl.runs.timing import timed
from llmctl.sampling import Settings

JOURNAL = "items"
# What the journal holds as the status of an item; otherwise it is why its picture cannot be read.
DESCRIBED, SAID_NOTHING, FAILED = "described", "model said nothing", "engine failed"


@dataclass(frozen=True)
class ItemSummary:
    """The description of an item's picture."""

    item: str
    summary: str  # empty where there is none
    status: str  # DESCRIBED, or the reason why there is no description

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Self:
        """Read a record of the journal."""
        return cls(record["item"], record["summary"], record["status"])

    def to_record(self) -> dict[str, Any]:
        """The record of the journal."""
        return asdict(self)


def summarize_items(
    run: Run,
    settings: ItemSummarySettings,
    prepared: PreparedData,
    model: CachedModel,
    seed: int,
    *,
    quiet: bool = False,
) -> dict[str, int]:
    """Describe the pictures of a run's items; chunks that are in the journal are not described again.

    Args:
        run: Open.
        settings: Prompt, sampling and limits.
        prepared: The run's data.
        model: The vision-language model.
        seed: Seed for sampling; unused at temperature 0.
        quiet: Show no progress.

    Returns:
        The number of items by status, the most frequent first.
    """
    book, total = run.journal(JOURNAL), prepared.summary.items
    sampling = Settings(
        temperature=settings.temperature, top_p=settings.top_p, max_tokens=settings.max_tokens, seed=seed
    )
    done = min(total, len(book) * settings.chunk)
    with progress(total, "describe items", "items", done=done, quiet=quiet) as bar:
        for number, chunk in enumerate(cut(prepared.items(), settings.chunk)):
            if (key := f"chunk-{number}") in book:
                continue
            with timed(run, f"{JOURNAL}/{key}"):
                found = describe_chunk(chunk, settings, model, sampling)
                book.append_many(key, [one.to_record() for one in found])
            bar.advance(len(chunk))
    return item_counts(run)


def describe_chunk(
    chunk: Sequence[Item], settings: ItemSummarySettings, model: CachedModel, sampling: Settings
) -> list[ItemSummary]:
    """One summary per item, in order; all pictures are described in one batch."""
    problems: dict[str, str | None] = {}
    conversations = {}
    for item in chunk:
        picture = read_picture(item.image, max_side=settings.max_side, max_megapixels=settings.max_megapixels)
        problems[item.id] = picture.problem
        if picture.image is not None:
            text = prompts.fill(settings.prompt, {"title": item.title})
            parts = [{"type": "image", "image": picture.image}, {"type": "text", "text": text}]
            conversations[item.id] = [{"role": "user", "content": parts}]
    answers = model.complete(list(conversations.values()), sampling) if conversations else []
    described = {}
    for item_id, answer in zip(conversations, answers, strict=True):
        text = " ".join(answer.text.split())
        failed = FAILED if answer.error is not None else SAID_NOTHING
        described[item_id] = ItemSummary(item_id, text, DESCRIBED if text else failed)
    return [
        described.get(item_id) or ItemSummary(item_id, "", problem or DESCRIBED)
        for item_id, problem in problems.items()
    ]


def check_reads_images(vlm: str) -> None:
    """Refuse a model without image input, before any picture is opened.

    Raises:
        UserError: The model takes no images, or is missing.
    """
    if not reads_images(vlm):
        raise UserError(
            f"items.vlm is {vlm}, which takes no pictures, but items are to be described from theirs: give a "
            "vision-language model, or set items.vlm=null"
        )


def item_summaries(run: Journals) -> Iterator[ItemSummary]:
    """The item summaries of a run, in the order of the items."""
    return (ItemSummary.from_record(record) for record in run.journal(JOURNAL))


def item_counts(run: Journals) -> dict[str, int]:
    """The number of items by status, the most frequent first."""
    return dict(Counter(one.status for one in item_summaries(run)).most_common())


def descriptions(run: Journals, prepared: PreparedData) -> dict[str, str]:
    """The description of each item: that of its picture, or else the item's own text, which may be empty."""
    summaries = {one.item: one.summary for one in item_summaries(run)}
    return {item.id: summaries.get(item.id) or item.text for item in prepared.items()}


def fallback_sentence(counts: Mapping[str, int]) -> str:
    """The counts of `item_counts` as a sentence, for terminals and reports."""
    others = {status: n for status, n in counts.items() if status != DESCRIBED}
    described = f"{counts.get(DESCRIBED, 0):,} pictures described"
    if not others:
        return f"{described}, no item fell back to its text."
    reasons = ", ".join(f"{status}: {n:,}" for status, n in others.items())
    return f"{described}; {sum(others.values()):,} items fell back to their text ({reasons})."

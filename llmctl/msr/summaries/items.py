"""Item summaries: each picture is described once, and what can not be described falls back to text.

journal/items.jsonl     a chunk of items a line; of each its summary, and why there is none
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, TypeVar

from llmctl.errors import UserError
from llmctl.models.description import reads_images
from llmctl.msr import prompts
from llmctl.msr.data.prepare import Prepared
from llmctl.msr.data.stored import Journals
from llmctl.msr.settings import ItemSettings
from llmctl.msr.summaries.cached_llm import Asker
from llmctl.msr.types import Item
from llmctl.pictures import read_picture
from llmctl.runs import Run, progress
from llmctl.runs.chunks import cut
from llmctl.runs.timing import timed
from llmctl.sampling import Settings

JOURNAL = "items"
DESCRIBED, SAID_NOTHING, FAILED = "described", "model said nothing", "engine failed"

T = TypeVar("T")


def summarize_items(
    run: Run, settings: ItemSettings, prepared: Prepared, asker: Asker, seed: int, *, quiet: bool = False
) -> dict[str, int]:
    """Describe the pictures of a run's items; does only what its journal lacks.

    Args:
        run: Open.
        settings: How.
        prepared: The run's data.
        asker: Of the vision-language model.
        seed: Of the run; with temperature 0 it plays no part.
        quiet: No progress.

    Returns:
        How many items were described, and how many fell back to text for which reason.
    """
    book, total = run.journal(JOURNAL), int(prepared.facts["items"])
    how = Settings(
        temperature=settings.temperature, top_p=settings.top_p, max_tokens=settings.max_tokens, seed=seed
    )
    done = min(total, len(book) * settings.chunk)
    with progress(total, "describe items", "items", done=done, quiet=quiet) as bar:
        for number, chunk in enumerate(cut(prepared.items(), settings.chunk)):
            if (key := f"chunk-{number}") in book:
                continue
            with timed(run, f"{JOURNAL}/{key}"):
                book.append_many(key, describe_chunk(chunk, settings, asker, how))
            bar.advance(len(chunk))
    return item_counts(run)


def describe_chunk(
    chunk: Sequence[Item], settings: ItemSettings, asker: Asker, how: Settings
) -> list[dict[str, Any]]:
    """A record an item, in order: `item`, `summary` (may be empty), `status`."""
    records: dict[str, dict[str, Any]] = {}
    asked = {}
    for item in chunk:
        picture = read_picture(item.image, max_side=settings.max_side, max_megapixels=settings.max_megapixels)
        records[item.id] = {"item": item.id, "summary": "", "status": picture.problem or DESCRIBED}
        if picture.image is not None:
            question = prompts.fill(settings.prompt, {"title": item.title})
            parts = [{"type": "image", "image": picture.image}, {"type": "text", "text": question}]
            asked[item.id] = [{"role": "user", "content": parts}]
    answers = asker.ask(list(asked.values()), how) if asked else []
    for item_id, answer in zip(asked, answers, strict=True):
        text = " ".join(answer.text.split())
        failed = FAILED if answer.error is not None else SAID_NOTHING
        records[item_id] |= {"summary": text} if text else {"status": failed}
    return list(records.values())


def check_reads_images(vlm: str) -> None:
    """Refuse a model that has no input for pictures, before any of them is opened.

    Raises:
        UserError: It has none, or is not there.
    """
    if not reads_images(vlm):
        raise UserError(
            f"items.vlm is {vlm}, which takes no pictures, but items are to be described from theirs: give a "
            "vision-language model, or set items.vlm=null"
        )


def item_counts(run: Run) -> dict[str, int]:
    """Items by what became of their pictures, most first."""
    return dict(Counter(record["status"] for record in run.journal(JOURNAL)).most_common())


def descriptions(run: Journals, prepared: Prepared) -> dict[str, str]:
    """What is said of each item beside its title: of its picture, or else its own text; may be empty."""
    summaries = {record["item"]: record["summary"] for record in run.journal(JOURNAL)}
    return {item.id: summaries.get(item.id) or item.text for item in prepared.items()}


def fallback_sentence(counts: dict[str, int]) -> str:
    """The counts in words, for terminals and reports."""
    others = {status: n for status, n in counts.items() if status != DESCRIBED}
    said = f"{counts.get(DESCRIBED, 0):,} pictures described"
    if not others:
        return f"{said}, no item fell back to its text."
    reasons = ", ".join(f"{status}: {n:,}" for status, n in others.items())
    return f"{said}; {sum(others.values()):,} items fell back to their text ({reasons})."

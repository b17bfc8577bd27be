"""The demo's writer: the embedded language model, fine-tuned to write user summaries.

It takes the place of the paper's model with 8 billion parameters, and is trained on other simulated users
(see `writing`). It answers the default prompts of user summaries; on other prompts it is worse than before.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from llmctl.demo.making import make_once
from llmctl.errors import UserError
from llmctl.models import resolve
from llmctl.models.registry import DEMO_WRITER, made_folder
from llmctl.runs import progress
from llmctl.runs.files import read_json, write_json

REPORT = "demo_writer.json"  # beside the weights

# The embedded model's own template adds a system message of two dozen tokens to a conversation without one,
# which doubles the length of a short prompt, and its time.
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@dataclass(frozen=True)
class WriterSettings:
    """How the writer is trained and evaluated."""

    users: int = 60
    """Number of simulated training users."""
    steps: int = 40
    """Optimizer steps."""
    batch_size: int = 8
    """Examples per step."""
    learning_rate: float = 5e-4
    """Highest learning rate."""
    rank: int = 16
    """Rank of the LoRA adapter, which is merged into the weights after training."""
    held_out: int = 24
    """Number of users that it is evaluated on."""
    seed: int = 0
    """Seed for users and training."""


def ensure_demo_writer(
    folder: Path | None = None, settings: WriterSettings | None = None, *, quiet: bool = False
) -> Path:
    """The folder of the demo's writer, which is trained where it does not exist yet; a stopped start goes on.

    Args:
        folder: Where to make it; None for the folder in llmctl's cache that `msr-demo-writer` stands for.
        settings: How it is trained.
        quiet: Show no progress.

    Returns:
        A folder with a causal language model.

    Raises:
        UserError: The embedded language model is missing, or the cache cannot be written.
    """
    target = made_folder(DEMO_WRITER) if folder is None else folder
    if (target / "config.json").is_file():
        return target
    adapter = target.with_name(f"{target.name}.adapter")
    make = partial(
        make_demo_writer,
        language=resolve("smollm2-135m"),
        adapter=adapter,
        settings=settings or WriterSettings(),
        quiet=quiet,
    )
    make_once(target, make)
    for left in (adapter, adapter.with_suffix(".base")):
        shutil.rmtree(left, ignore_errors=True)
    return target


def with_template(language: Path, folder: Path) -> Path:
    """A folder with links to the files of a language model, and the writer's chat template."""
    folder.mkdir(exist_ok=True)
    for file in language.iterdir():
        link = folder / file.name
        if file.name != "chat_template.jinja" and not link.is_symlink():
            link.symlink_to(file.resolve())
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    return folder


def demo_writer_report(folder: Path) -> dict[str, Any]:
    """The report of a writer: training settings, and how well it summarizes.

    Raises:
        UserError: The folder holds no writer.
    """
    if not (folder / REPORT).is_file():
        raise UserError(f"{folder} holds no demo writer: make it with `llmctl msr demo-model`")
    return dict(read_json(folder / REPORT))


def make_demo_writer(
    folder: Path, *, language: Path, adapter: Path, settings: WriterSettings, quiet: bool = False
) -> None:
    """Train a LoRA adapter, merge it, and save the model with its report.

    Args:
        folder: Where to save the model.
        language: Folder of a causal language model.
        adapter: Folder of the adapter during training, from which a stopped start goes on. A folder beside
            it links to the model with the writer's chat template.
        settings: How the writer is trained.
        quiet: Show no progress.
    """
    from llmctl.demo.writing import writing_rows
    from llmctl.models.loading import attach_adapter, load
    from llmctl.models.quiet import quiet_libraries

    with quiet_libraries():  # the trainer's libraries print while they are imported
        from llmctl.training import train

    began = time.perf_counter()
    base = with_template(language, adapter.with_suffix(".base"))
    rows = [{"messages": list(row.messages)} for row in writing_rows(settings.users, settings.seed)]
    with progress(settings.steps, "learn to summarize", "steps", quiet=quiet) as bar:
        done = train(
            base,
            rows,
            _training(settings),
            adapter,
            progress=lambda step, total, loss: bar.advance(step - bar.done, note=f"loss {loss:.2f}"),
        )
    with quiet_libraries():
        loaded = load(base, device="cpu", dtype="float32")
        attach_adapter(loaded.model, adapter).merge_and_unload().save_pretrained(folder)
        loaded.tokenizer.save_pretrained(folder)
    seconds = round(time.perf_counter() - began, 1)
    report = {
        "language_model": language.name,
        "teaching": asdict(settings),
        "rows": len(rows),
        "last_loss": done.losses[-1],
        "seconds": seconds,
    }
    write_json(folder / REPORT, report | measure_demo_writer(folder, settings.held_out))


def measure_demo_writer(folder: str | Path, users: int, seed: int = 1) -> dict[str, Any]:
    """Measure how often the last summary of a held-out user begins with the colour of the latest taste.

    Args:
        folder: The folder of the model, or its name.
        users: The number of simulated users, who differ from those of `make_demo_writer`.
        seed: Seed for these users.

    Returns:
        Shares with Wilson intervals for `recurrent` and `direct`, and a few example summaries.
    """
    from llmctl.demo.writing import held_out_histories
    from llmctl.runs import wilson
    from llmctl.sampling import open_sampler

    histories = held_out_histories(users, seed)
    blocks = {
        "recurrent": [one.blocks for one in histories],
        "direct": [[[line for block in one.blocks for line in block]] for one in histories],
    }
    sampler = open_sampler(str(folder), engine="transformers")
    try:
        summaries = {kind: _summarize(sampler, each) for kind, each in blocks.items()}
    finally:
        sampler.close()
    found = {
        kind: wilson(
            sum(first_colour(text) == one.colour for text, one in zip(texts, histories, strict=True)), users
        ).to_dict()
        for kind, texts in summaries.items()
    }
    examples = [
        {"true": one.summary, **{kind: texts[number] for kind, texts in summaries.items()}}
        for number, one in enumerate(histories[:6])
    ]
    return {"held_out": {"users": users, "seed": seed}, "names_latest_colour": found, "examples": examples}


def first_colour(text: str) -> str | None:
    """The first word of a text that is a colour of the demo."""
    from llmctl.demo.attributes import COLOURS

    words = "".join(letter if letter.isalpha() else " " for letter in text.lower()).split()
    return next((word for word in words if word in COLOURS), None)


def _summarize(sampler: Any, blocks: Sequence[Sequence[Sequence[str]]]) -> list[str]:
    """The last summary of each user, sampled greedily, all users in lockstep."""
    from llmctl.msr import prompts
    from llmctl.sampling import Settings

    summaries = [""] * len(blocks)
    for block in range(max(map(len, blocks))):
        active = [user for user, own in enumerate(blocks) if len(own) > block]
        conversations = []
        for user in active:
            fields = {"summary": summaries[user], "items": prompts.item_list(blocks[user][block])}
            template = prompts.NEXT_BLOCK if summaries[user] else prompts.FIRST_BLOCK
            conversations.append([{"role": "user", "content": prompts.fill(template, fields)}])
        replies = sampler.chat(conversations, Settings(temperature=0.0, max_tokens=32))
        for user, reply in zip(active, replies, strict=True):
            summaries[user] = " ".join(reply[0].text.split())
    return summaries


def _training(settings: WriterSettings) -> Any:
    from llmctl.training import TrainSettings

    return TrainSettings.model_validate(
        {
            "adapter": "lora",
            "lora": {"r": settings.rank, "alpha": 2 * settings.rank},
            "learning_rate": settings.learning_rate,
            "warmup_ratio": 0.1,
            "max_steps": settings.steps,
            "batch_size": settings.batch_size,
            "save": {"save_steps": 10},
            "seed": settings.seed,
        }
    )

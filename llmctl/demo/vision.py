"""The demo's vision-language model, which llmctl trains once and keeps in its cache.

It takes the place of the paper's multimodal model with 7 billion parameters, and describes only pictures
like those of the demo. Its language model is the embedded default, unchanged: only vision encoder and
projector are trained.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmctl.demo.making import make_once
from llmctl.errors import UserError
from llmctl.models import resolve
from llmctl.models.registry import DEMO_MODEL, made_folder
from llmctl.runs.files import read_json, write_json

if TYPE_CHECKING:
    from llmctl.demo.network import TowerShape
    from llmctl.demo.teaching import TeachSettings

REPORT = "demo_model.json"  # beside the weights: training settings, and how well it describes


@dataclass(frozen=True)
class HeldOut:
    """The pictures that the model is evaluated on."""

    pictures: int = 200
    seed: int = 1


def ensure_demo_model(folder: Path | None = None, *, quiet: bool = False) -> Path:
    """The folder of the demo's vision-language model, which is trained where it does not exist yet.

    A lock lets only one process train it, and the folder is complete or absent. A start that was stopped
    after the alignment goes on from there.

    Args:
        folder: Where to make it; None for the folder in llmctl's cache that `msr-demo` stands for.
        quiet: Show no progress.

    Returns:
        A folder that `AutoProcessor` and `AutoModelForImageTextToText` load.

    Raises:
        UserError: The embedded language model is missing, or the cache cannot be written.
    """
    from llmctl.demo.network import TowerShape
    from llmctl.demo.teaching import TeachSettings

    target = made_folder(DEMO_MODEL) if folder is None else folder
    if (target / "config.json").is_file():
        return target
    language = resolve("smollm2-135m")
    kept = target.with_name(f"{target.name}.words.safetensors")

    def build(scratch: Path) -> None:
        report = make_demo_model(scratch, language, TowerShape(), TeachSettings(), kept=kept, quiet=quiet)
        write_json(scratch / REPORT, report | measure_demo_model(scratch, HeldOut()))

    make_once(target, build)
    kept.unlink(missing_ok=True)
    return target


def demo_model_report(folder: Path) -> dict[str, Any]:
    """The report of a demo model: training settings, and how well it describes pictures.

    Raises:
        UserError: The folder holds no demo model.
    """
    if not (folder / REPORT).is_file():
        raise UserError(f"{folder} holds no demo model: make it with `llmctl msr demo-model`")
    return dict(read_json(folder / REPORT))


def make_demo_model(
    folder: Path,
    language: Path,
    shape: TowerShape,
    settings: TeachSettings,
    *,
    kept: Path | None = None,
    quiet: bool = False,
) -> dict[str, Any]:
    """Train a model and save it.

    Args:
        folder: Where to save it.
        language: Folder of a Llama model with its tokenizer.
        shape: Shape of the vision encoder.
        settings: How it is trained.
        kept: File for the vision weights between the two stages, in case this is stopped.
        quiet: Show no progress.

    Returns:
        Settings, seconds of each stage, last losses.
    """
    from llmctl.demo.alignment import teach_words
    from llmctl.demo.captions import teach_sentences
    from llmctl.demo.checkpoint import load_vision_weights, save_vision_weights
    from llmctl.demo.network import build_network
    from llmctl.demo.training_pictures import TrainingPictures
    from llmctl.models.quiet import quiet_libraries

    seconds: dict[str, float] = {}
    model, processor = build_network(language, shape, settings.seed)
    stamp = {"settings": repr((shape, settings)), "language": language.name}
    with _timed(seconds, "draw"):
        pictures = TrainingPictures.draw(settings.pictures, shape.pixels, settings.seed, quiet=quiet)
    losses = {}
    with _timed(seconds, "words"):
        if kept is None or not load_vision_weights(model, kept, stamp):
            losses["words"] = teach_words(model, processor.tokenizer, pictures, settings, quiet=quiet)
            if kept is not None:
                save_vision_weights(model, kept, stamp)
    with _timed(seconds, "sentences"):
        losses["sentences"] = teach_sentences(model, processor, pictures, settings, quiet=quiet)
    with quiet_libraries():
        model.save_pretrained(folder)
        processor.save_pretrained(folder)
    return {
        "language_model": language.name,
        "tower": asdict(shape),
        "teaching": asdict(settings),
        "losses": losses,
        "seconds": seconds,
    }


def measure_demo_model(folder: Path, held_out: HeldOut) -> dict[str, Any]:
    """Measure how often descriptions of held-out pictures are right.

    Args:
        folder: The folder of the model.
        held_out: Which pictures.
    """
    from llmctl.demo.measure import ask_about_pictures, count_right, held_out_pictures
    from llmctl.models.quiet import quiet_libraries

    looks, pictures = held_out_pictures(held_out.pictures, held_out.seed)
    with quiet_libraries():
        descriptions = ask_about_pictures(folder, pictures)
    found = count_right(looks, descriptions)
    return {
        "held_out": asdict(held_out),
        "names_rightly": {name: estimate.to_dict() for name, estimate in found.items()},
        "examples": dict(zip([look.caption for look in looks[:8]], descriptions, strict=False)),
    }


@contextmanager
def _timed(seconds: dict[str, float], stage: str) -> Iterator[None]:
    """Note the seconds of the block."""
    start = time.perf_counter()
    yield
    seconds[stage] = round(time.perf_counter() - start, 1)

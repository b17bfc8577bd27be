"""The demo's vision-language model: made once by the project itself, and kept in llmctl's cache.

A stand-in for the multimodal model of 7 billion parameters in the paper: it knows the demo's pictures and
no others. Its language model is the embedded default, unchanged; only its tower and projector are taught.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
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

REPORT = "demo_model.json"  # beside the weights: how it was taught, and how well it describes


@dataclass(frozen=True)
class HeldOut:
    """The pictures that the model is measured on."""

    pictures: int = 200
    seed: int = 1


def ensure_demo_model(folder: Path | None = None, *, quiet: bool = False) -> Path:
    """The folder of the demo's vision-language model, made when it is not there yet.

    A lock lets only one process make it; the folder appears whole or not at all. One that was stopped after
    its model had learned words goes on from there.

    Args:
        folder: None is the place in llmctl's cache that `msr-demo` stands for.
        quiet: No progress.

    Returns:
        A folder that `AutoProcessor` and `AutoModelForImageTextToText` load.

    Raises:
        UserError: The embedded language model is not there, or the cache can not be written.
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
    """How a demo model was taught and how well it describes.

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
    """Teach a model and save it.

    Args:
        folder: Where to.
        language: Folder of a Llama with its tokenizer.
        shape: Of the tower.
        settings: How it learns.
        kept: File that holds tower and projector between the two stages, should this be stopped.
        quiet: No progress.

    Returns:
        Settings, seconds of each stage, last losses.
    """
    from llmctl.demo.network import build_network
    from llmctl.demo.teaching import Pictures, teach_sentences, teach_words
    from llmctl.models.quiet import quiet_libraries

    clock = _Clock()
    model, processor = build_network(language, shape, settings.seed)
    stamp = {"settings": repr((shape, settings)), "language": language.name}
    pictures = Pictures.draw(settings.pictures, shape.pixels, settings.seed, quiet=quiet)
    clock.note("draw")
    losses = {}
    if kept is None or not _take_up(model, kept, stamp):
        losses["words"] = teach_words(model, processor.tokenizer, pictures, settings, quiet=quiet)
        if kept is not None:
            _keep(model, kept, stamp)
    clock.note("words")
    losses["sentences"] = teach_sentences(model, processor, pictures, settings, quiet=quiet)
    clock.note("sentences")
    with quiet_libraries():
        model.save_pretrained(folder)
        processor.save_pretrained(folder)
    return {
        "language_model": language.name,
        "tower": asdict(shape),
        "teaching": asdict(settings),
        "losses": losses,
        "seconds": clock.seconds,
    }


def measure_demo_model(folder: Path, held_out: HeldOut) -> dict[str, Any]:
    """How often the descriptions of held-out pictures are right.

    Args:
        folder: Of the model.
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


def _seeing_part(model: Any) -> dict[str, Any]:
    parts = {"tower": model.model.vision_tower, "projector": model.model.multi_modal_projector}
    return {
        f"{name}.{key}": value for name, part in parts.items() for key, value in part.state_dict().items()
    }


def _keep(model: Any, path: Path, stamp: Mapping[str, str]) -> None:
    from safetensors.torch import save_file

    temporary = path.with_name(f".{path.name}")
    weights = {name: value.contiguous() for name, value in _seeing_part(model).items()}
    save_file(weights, temporary, metadata=dict(stamp))
    os.replace(temporary, path)


def _take_up(model: Any, path: Path, stamp: Mapping[str, str]) -> bool:
    """Put back what a stopped start had learned with the same settings; whether there was any."""
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        return False
    try:
        with safe_open(path, "pt") as file:
            if file.metadata() != dict(stamp):
                return False
            found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  it is no dict
    except SafetensorError:  # torn by a power cut: it is learned again
        return False
    import torch

    with torch.no_grad():
        for name, value in _seeing_part(model).items():
            value.copy_(found[name])
    return True


@dataclass
class _Clock:
    """Seconds of stages, one after another."""

    seconds: dict[str, float] = field(default_factory=dict)
    _last: float = field(default_factory=time.perf_counter)

    def note(self, stage: str) -> None:
        """The stage that began where the last one ended is over."""
        now = time.perf_counter()
        self.seconds[stage] = round(now - self._last, 1)
        self._last = now

"""Which models the page may open, and the ones that are open.

Nothing is fetched: a model is offered when its files are here. Folders are offered when they were named at
the start or lie in the runs folder, so a page cannot make the server read any other place.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from llmctl.errors import UserError
from llmctl.explorer.files.library import Library
from llmctl.explorer.files.readers import read_object
from llmctl.explorer.limits import Limits
from llmctl.explorer.requests import TEXTS, ModelRequest
from llmctl.models import is_here, list_models

_KEPT = 2  # models in memory
_CONFIG_BYTES = 2**20  # of an adapter's configuration
_LONGEST = 1_000  # characters of a model's name


@dataclass(frozen=True)
class Offer:
    """A model or an adapter that the page may choose."""

    name: str  # what an order names it by
    label: str
    base: str | None = None  # of an adapter: the model that it was trained on


class Open:
    """A loaded model, and what is asked of its vocabulary."""

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self.model, self.tokenizer = model, tokenizer

    @cached_property
    def texts(self) -> list[str]:
        """The text of every token that the tokenizer has, by id."""
        from llmctl.reach.scoring.scorer import vocabulary_of

        size = min(vocabulary_of(self.model), len(self.tokenizer))
        texts: list[str] = self.tokenizer.batch_decode(
            [[token] for token in range(size)], skip_special_tokens=False, clean_up_tokenization_spaces=False
        )
        return texts

    def tokens(self, ids: Sequence[int]) -> list[dict[str, Any]]:
        """Ids with their texts, for the page."""
        return [{"id": token, "text": self.text(token)} for token in ids]

    def text(self, token: int) -> str:
        """The text of one token; empty for a row of the embedding that no token has."""
        return self.texts[token] if 0 <= token < len(self.texts) else ""


class Models:
    """What may be opened, and a small cache of what is open.

    Args:
        library: Models and adapters that runs have left are offered as well.
        models: Aliases, folders or Hub names that were named at the start; the first is the default.
        adapters: Folders of adapters that were named at the start.
        options: Of `llmctl.models.load`: device, dtype, quantization.
    """

    def __init__(
        self,
        library: Library,
        models: Sequence[str] = ("smollm2-135m",),
        adapters: Sequence[Path] = (),
        options: dict[str, Any] | None = None,
    ) -> None:
        self._library, self._named, self._adapters = library, tuple(models), tuple(adapters)
        self._options = options or {}
        self._open: OrderedDict[tuple[str, str | None], Open] = OrderedDict()
        self._mutex = threading.Lock()

    def offers(self) -> dict[str, Any]:
        """`models` and `adapters` that may be chosen, the default first."""
        aliases = [info.name for info in list_models() if info.is_here and info.name not in self._named]
        models = [Offer(name, _short(name)) for name in (*self._named, *aliases)]
        models += [Offer(f"runs:{name}", name) for name in self._library.model_folders()]
        adapters = [Offer(str(path), _short(str(path)), _base_of(path)) for path in self._adapters]
        for name in self._library.adapter_folders():
            adapters.append(Offer(f"runs:{name}", name, _base_of(self._library.inside(name))))
        return {"models": [vars(offer) for offer in models], "adapters": [vars(offer) for offer in adapters]}

    def get(self, model: str, adapter: str | None = None) -> Open:
        """A model, loaded where it is not open yet; the one that was used longest ago gives way.

        The caller has its turn at the scheduler, so that loading and computing never overlap.

        Raises:
            UserError: The page may not choose it, or it cannot be loaded.
        """
        key = (model, adapter)
        with self._mutex:
            if key in self._open:
                self._open.move_to_end(key)
                return self._open[key]
        found = self._load(self._model(model), self._adapter(adapter))
        with self._mutex:
            self._open[key] = found
            while len(self._open) > _KEPT:
                self._open.popitem(last=False)
        return found

    def _load(self, model: str, adapter: Path | None) -> Open:
        from llmctl.explorer.jobs import watch
        from llmctl.models.loading import load
        from llmctl.reach.scoring.scorer import check_model

        loaded = load(model, adapter=adapter, **self._options)
        check_model(loaded.model)
        watch(loaded.model)
        return Open(loaded.model, loaded.tokenizer)

    def _model(self, name: str) -> str:
        if name in self._named:
            return name
        if name.startswith("runs:") and name.removeprefix("runs:") in self._library.model_folders():
            return str(self._library.inside(name.removeprefix("runs:")))
        if any(info.name == name for info in list_models()) and is_here(name):
            return name
        raise UserError(
            f"model {name!r} is not on offer: choose one of the list, or start the explorer with --model"
        )

    def _adapter(self, name: str | None) -> Path | None:
        if name is None:
            return None
        if name in map(str, self._adapters):
            return Path(name)
        if name.startswith("runs:") and name.removeprefix("runs:") in self._library.adapter_folders():
            return self._library.inside(name.removeprefix("runs:"))
        raise UserError(
            f"adapter {name!r} is not on offer: choose one of the list, or start the explorer with --adapter"
        )


def check_tokens(models: Models, request: ModelRequest, limits: Limits) -> None:
    """Hold the texts of a request to so many tokens of its model; the caller has its turn.

    Raises:
        UserError: A text has too many tokens, or the model may not be opened.
    """
    tokenizer = models.get(request.model, request.adapter).tokenizer
    for name in TEXTS:
        text = getattr(request, name, "")
        count = len(tokenizer.encode(text, add_special_tokens=False)) if text else 0
        if count > limits.tokens:
            raise UserError(
                f"the {name} has {count:,} tokens, but this explorer allows {limits.tokens:,} at most: "
                "shorten it"
            )


def _short(name: str) -> str:
    """A folder by its last two names, without the place where a user keeps it."""
    return "/".join(Path(name).parts[-2:]) if Path(name).is_dir() else name


def _base_of(folder: Path) -> str | None:
    try:
        config = read_object(folder / "adapter_config.json", _CONFIG_BYTES)
    except (UserError, OSError):
        return None
    base = config.get("base_model_name_or_path")
    return _short(base) if isinstance(base, str) and 0 < len(base) <= _LONGEST else None

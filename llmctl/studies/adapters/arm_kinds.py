"""The arms that a comparison may name: the base model, adapters with a size to match, and their ablations."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from llmctl.training.adapters import ADAPTERS, BUILTIN, Ablation, AdapterMethod
from llmctl.training.config import TrainSettings

BASE = "base"


@dataclass(frozen=True)
class ArmKind:
    """An adapter, or an ablation of one, as an arm."""

    name: str
    adapter: AdapterMethod
    title: str
    options: Mapping[str, Any] = field(default_factory=dict)  # of the ablation

    @property
    def is_ablation(self) -> bool:
        """Whether a part of the adapter is removed."""
        return bool(self.options)

    @property
    def is_reference(self) -> bool:
        """Whether the other arms are compared with this one."""
        return self.adapter.is_reference and not self.is_ablation


def arm_names() -> list[str]:
    """All arms that a recipe may name; adapters of other packages are not imported for it."""
    built_in = [kind.name for kind in _built_in()]
    return [BASE, *built_in, *(_arm_name(name) for name in ADAPTERS if name not in BUILTIN)]


def arm_kind(name: str) -> ArmKind:
    """The arm of that name.

    Raises:
        UserError: There is no such adapter, or it cannot be imported.
    """
    for kind in _built_in():
        if kind.name == name:
            return kind
    adapter = ADAPTERS[next((known for known in ADAPTERS if _arm_name(known) == name), name)]
    return ArmKind(name, adapter, adapter.title)


def arm_title(name: str) -> str:
    """An arm's name in reports; architectures keep theirs."""
    return {kind.name: kind.title for kind in _built_in()}.get(name, name)


def arm_pairs(names: Sequence[str]) -> list[tuple[str, str]]:
    """Which arms are compared: (a, b) for a - b, the comparisons that matter most first."""
    kinds = [arm_kind(name) for name in arm_names() if name in names and name != BASE]
    references = [kind.name for kind in kinds if kind.is_reference]
    others = [kind for kind in kinds if not kind.is_reference]
    pairs: list[tuple[str, str]] = []
    for kind in (kind for kind in others if not kind.is_ablation):
        pairs += [(kind.name, reference) for reference in references]
        pairs += [(kind.name, part.name) for part in kind.adapter.ablations if part.name in names]
    pairs += [(kind.name, reference) for kind in others if kind.is_ablation for reference in references]
    return pairs + [(kind.name, BASE) for kind in kinds if BASE in names]


def reference_arm() -> str:
    """The arm that other adapters are compared with at equal size."""
    return next(kind.name for kind in _built_in() if kind.is_reference)


def default_budget(model_config: Any, train: TrainSettings) -> int:
    """Trained parameters of every arm where the recipe names no budget."""
    counts = (kind.adapter.default_budget for kind in _built_in())
    return next(count(model_config, train) for count in counts if count is not None)


def solved_options(train: TrainSettings) -> Iterator[tuple[str, str, Any]]:
    """(key, option, value) of options that a comparison chooses itself, but that are given."""
    for kind in _built_in():
        option, given = kind.adapter.size_option, getattr(train, kind.adapter.options_key)
        if not kind.is_ablation and option is not None and option in given:
            yield kind.adapter.options_key, option, given[option]


def ablated_options(train: TrainSettings) -> Iterator[tuple[str, str, Any, Ablation]]:
    """(key, option, value, ablation) of options that turn an adapter into one of its ablations."""
    for kind in _built_in():
        given = {} if kind.is_ablation else getattr(train, kind.adapter.options_key)
        for ablation in kind.adapter.ablations:
            for option, value in ablation.options.items():
                if isinstance(given, Mapping) and given.get(option) == value:
                    yield kind.adapter.options_key, option, value, ablation


def _built_in() -> Iterator[ArmKind]:
    for name in BUILTIN:
        adapter = ADAPTERS[name]
        if adapter.match_size is not None:
            yield ArmKind(_arm_name(name), adapter, adapter.title)
            for part in adapter.ablations:
                yield ArmKind(part.name, adapter, part.title, part.options)


def _arm_name(adapter: str) -> str:
    """Arms are keys of metrics.json, where names have underscores."""
    return adapter.replace("-", "_")

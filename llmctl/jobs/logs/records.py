"""What every reader of logs returns: one score per sample, task and metric."""

from __future__ import annotations

import hashlib
import json
import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from llmctl.errors import UserError

_PREFIX = 500  # characters of a question that its digest covers: some tools store no more of a long one


@dataclass(frozen=True)
class Scores:
    """The scores of one task and metric."""

    task: str
    metric: str
    values: Mapping[str, float]  # by sample; the mean over a sample's repetitions (epochs, seeds)
    questions: Mapping[str, str]  # a digest of each sample's question; samples without one are left out
    errors: int = 0  # samples that have no score, because the model or the scorer failed

    @property
    def is_binary(self) -> bool:
        """Whether every score is 0 or 1."""
        return all(value in (0.0, 1.0) for value in self.values.values())


@dataclass(frozen=True)
class EvaluationLog:
    """One model's scores as a tool recorded them."""

    path: str
    tool: str  # inspect_ai, lm-eval or llmctl
    model: str
    scores: tuple[Scores, ...]

    def find(self, task: str, metric: str) -> Scores | None:
        """The scores of one task and metric, or None."""
        return next((one for one in self.scores if (one.task, one.metric) == (task, metric)), None)


@dataclass
class ScoreCollector:
    """Collects scores sample by sample while a log is read; repetitions of a sample are averaged."""

    _sums: dict[tuple[str, str], dict[str, list[float]]] = field(
        default_factory=lambda: defaultdict(lambda: defaultdict(list))
    )
    _questions: dict[str, dict[str, str]] = field(default_factory=lambda: defaultdict(dict))
    _failed: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))

    def add(self, task: str, sample: str, scores: Mapping[str, float], question: Any = None) -> None:
        """Add the scores of one sample by metric."""
        for metric, value in scores.items():
            self._sums[task, metric][sample].append(value)
        if question is not None:
            self._questions[task].setdefault(sample, digest_of(question))

    def add_error(self, task: str, sample: str) -> None:
        """Note a repetition of a sample that has no score."""
        self._failed[task].add(sample)

    def finish(self, path: str, tool: str, model: str) -> EvaluationLog:
        """The whole log.

        Raises:
            UserError: Nothing in it is scored.
        """
        if not self._sums:
            raise UserError(f"{path} holds no scored sample: was the evaluation run to its end, and logged?")
        found = [
            Scores(
                task,
                metric,
                {sample: math.fsum(values) / len(values) for sample, values in samples.items()},
                self._questions[task],
                len(self._failed[task] - samples.keys()),
            )
            for (task, metric), samples in self._sums.items()
        ]
        return EvaluationLog(path, tool, model, tuple(found))


def digest_of(question: Any) -> str:
    """A short hash of a question: text, or the messages of a conversation."""
    text = question if isinstance(question, str) else json.dumps(question, sort_keys=True, default=str)
    return hashlib.sha256(text[:_PREFIX].encode(errors="replace")).hexdigest()[:16]


def score_of(value: Any) -> float | None:
    """A score as a number: numbers and booleans as they are, inspect_ai's letters, yes and no.

    Returns:
        None for what is no score (a text, a list, NaN).
    """
    if isinstance(value, str):
        letters = {"C": 1.0, "I": 0.0, "P": 0.5, "N": 0.0}  # correct, incorrect, partial, no answer
        words = {"yes": 1.0, "true": 1.0, "no": 0.0, "false": 0.0}
        if value in letters:
            return letters[value]
        if value.lower() in words:
            return words[value.lower()]
        try:
            value = float(value)
        except ValueError:
            return None
    if isinstance(value, (bool, int, float)) and math.isfinite(value):
        return float(value)
    return None

"""From collected episodes to weighted training conversations, streamed through a JSONL file.

A line is `{"prompt": [...], "completion": [...], "weight": w}`: TRL reads prompt and completion as they are
and puts loss on the completion alone, as RISE needs it.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from llmctl.errors import UserError
from llmctl.rise.recipe import RiseRecipe
from llmctl.rise.records import Episode
from llmctl.rise.turns import next_conversation
from llmctl.rise.weights import is_kept, raw_weight
from llmctl.runs.files import TEMPORARY_SUFFIX, to_json
from llmctl.tasks import Problem, Task


def training_rows(
    task: Task, problems: Iterable[Problem], episodes: Iterable[Episode], recipe: RiseRecipe
) -> Iterator[dict[str, Any]]:
    """Unscaled training rows, in the order of the episodes.

    Args:
        task: The task that gives the prompts.
        problems: The problems of the episodes, in the same order; others in between are skipped.
        episodes: As `collect_episodes` returns them.
        recipe: Its weights, its window, and which states are trained on.

    Yields:
        `prompt`, `completion`, `weight` (not yet scaled), and what `write_rows` counts: `turn`,
        `source` and `reward`.

    Raises:
        UserError: The problem of an episode is not among `problems`: the data changed since it was collected.
    """
    stream = iter(problems)
    for episode in episodes:
        problem = next((p for p in stream if p.id == episode.problem), None)
        if problem is None:
            raise UserError(
                f"problem {episode.problem!r} was collected but is no longer in the task's data: "
                "put the data back, or start over with --fresh"
            )
        yield from _rows_of_episode(task, problem, episode, recipe)


def _rows_of_episode(
    task: Task, problem: Problem, episode: Episode, recipe: RiseRecipe
) -> Iterator[dict[str, Any]]:
    for state in episode.states:
        improved, done = state.improved, episode.turns[: state.turn - 1]
        if improved is None or not (done or recipe.collect.first_turn):
            continue
        if not is_kept(improved.reward, [turn.reward for turn in done], recipe.weights.keep):
            continue
        s, w = recipe.sampling, recipe.weights
        yield {
            "prompt": next_conversation(task, problem, done, s.window, s.retry),
            "completion": [{"role": "assistant", "content": improved.text}],
            "weight": raw_weight(improved.reward, state.rewards, w.scheme, w.tau),
            "turn": state.turn,
            "kind": "first" if not done else "keep" if done[-1].is_correct else "repair",
            "source": improved.source,
            "reward": improved.reward,
        }


def write_rows(rows: Iterable[Mapping[str, Any]], path: Path, *, balance: bool = False) -> dict[str, Any]:
    """Scale the weights to mean 1 and write the rows, all of them or none, without holding them in memory.

    The trainer divides by the number of label tokens, not by the weights, so weights of mean 1 leave the
    effective learning rate of plain fine-tuning unchanged.

    Args:
        rows: As `training_rows` yields them.
        path: The JSONL file.
        balance: Give first answers, repairs and keeps the same total weight.

    Returns:
        Counts for the report: rows, by turn, by kind, by source, by reward.

    Raises:
        UserError: There are no rows.
    """
    counts: Counter[str] = Counter()
    # Hidden names that the next start of the run removes, should a kill leave them behind.
    raw, scaled = (path.with_name(f".{path.name}.{part}{TEMPORARY_SUFFIX}") for part in ("raw", "scaled"))
    totals: Counter[str] = Counter()  # of the weights, by kind
    with raw.open("w", encoding="utf-8") as file:
        for row in rows:
            totals[row["kind"] if balance else ""] += row["weight"]
            of = [f"turn {row['turn']}", row["kind"], f"from {row['source']}", f"reward {row['reward']:g}"]
            counts.update(["rows", *of])
            file.write(to_json(row) + "\n")
    if not counts["rows"]:
        raw.unlink()
        raise UserError(
            "no collected response is good enough to train on: collect more problems or samples, set "
            "weights.keep to better or all, or add reference to collect.improve, in a new --run"
        )
    scales = {kind: counts["rows"] / len(totals) / total for kind, total in totals.items()}
    with raw.open(encoding="utf-8") as source, scaled.open("w", encoding="utf-8") as file:
        for line in source:
            row = json.loads(line)
            kept = {key: row[key] for key in ("prompt", "completion")}
            scale = scales[row["kind"] if balance else ""]
            file.write(to_json({**kept, "weight": round(row["weight"] * scale, 6)}) + "\n")
        file.flush()
        os.fsync(file.fileno())
    raw.unlink()
    scaled.replace(path)
    return dict(counts)


def read_training_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a file as the trainer takes them: `messages` and `weight`."""
    with path.open(encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    return [{"messages": row["prompt"] + row["completion"], "weight": row["weight"]} for row in rows]

"""A job's results for other tools: CSV, Markdown, or logs that inspect_ai reads (`inspect view`).

Inspect's log was chosen over lm-eval's result file because it has a reader: a validated schema
(`inspect_ai.log.read_eval_log`) and a viewer. One log is written per model x task x protocol; protocols
that sample no text have none.
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from llmctl.jobs.partial import JobOutput, job_output
from llmctl.jobs.plan import open_tasks, task_problems
from llmctl.jobs.results import COLUMNS, read_groups
from llmctl.jobs.show import all_tables
from llmctl.jobs.spec import JobRecipe
from llmctl.runs.files import TEMPORARY_SUFFIX, disk_error, make_folder, write_json, write_text
from llmctl.tasks import Problem

Format = Literal["csv", "markdown", "inspect"]
INSPECT_VERSION = 2  # version of the log's schema


def export_job(folder: Path, to: Format, output: Path | None = None) -> list[Path]:
    """Write a job in another format, as far as it is finished.

    Args:
        folder: The job's folder.
        to: csv, one row per sample; markdown, the tables of `llmctl eval show`; inspect, a folder of logs.
        output: A file, or a folder for inspect; None is a default in the job's folder.

    Returns:
        The files that were written.

    Raises:
        UserError: No shard of the job is finished, its task is missing (inspect), or the disk refused.
    """
    with job_output(folder) as job:
        if to == "csv":
            return [_csv(job.path, output or folder / "results.csv")]
        if to == "markdown":
            path = output or folder / "summary.md"
            make_folder(path.parent)
            write_text(path, "\n\n".join(table.to_markdown() for table in all_tables(job.summary)) + "\n")
            return [path]
        target = output or folder / "inspect"
        make_folder(target)
        return list(_inspect(job, target))


def _csv(results: Path, path: Path) -> Path:
    import pyarrow as pa
    from pyarrow import csv

    make_folder(path.parent)
    temporary = path.with_name(f".{path.name}{TEMPORARY_SUFFIX}")
    try:
        writer = None
        for table in read_groups(results, COLUMNS):
            writer = writer or csv.CSVWriter(temporary, table.schema)
            writer.write_table(table)
        if writer is not None:
            writer.close()
        os.replace(temporary, path)
    except (OSError, pa.ArrowException) as error:
        if not isinstance(error, OSError):
            raise
        raise disk_error(error, f"write {path}") from error
    finally:
        temporary.unlink(missing_ok=True)
    return path


def _inspect(job: JobOutput, target: Path) -> Iterator[Path]:
    recipe = job.recipe
    created = datetime.fromtimestamp(job.path.stat().st_mtime, UTC).isoformat(timespec="seconds")
    problems = {
        name: {problem.id: problem for problem in task_problems(recipe, name, task)}
        for name, task in open_tasks(recipe).items()
    }
    entries = {(e["model"], e["task"], e["protocol"]): e for e in job.summary["figures"]}
    for group, rows in _groups(job.path):
        if group not in entries or not recipe.protocols[group[2]].definition.samples_text:
            continue
        samples = inspect_samples(recipe, group, rows, problems[group[1]])
        path = target / f"{re.sub('[^0-9A-Za-z.+-]+', '-', '_'.join([created, *group]))}.json"
        write_json(path, inspect_log(recipe, entries[group], samples, created))
        yield path


def _groups(results: Path) -> Iterator[tuple[tuple[str, str, str], list[dict[str, Any]]]]:
    """Rows by model, task and protocol, one group in memory at a time."""
    held: list[dict[str, Any]] = []
    current: tuple[str, str, str] | None = None
    for table in read_groups(results, COLUMNS):
        group = tuple(table[name][0].as_py() for name in ("model", "task", "protocol"))
        if current is not None and group != current:
            yield current, held
            held = []
        current = group  # type: ignore[assignment]
        held += table.to_pylist()
    if current is not None:
        yield current, held


def inspect_log(
    recipe: JobRecipe, entry: Mapping[str, Any], samples: Sequence[Mapping[str, Any]], created: str
) -> dict[str, Any]:
    """One log of inspect_ai: metrics and samples of one model, task and protocol.

    Args:
        recipe: The job's recipe.
        entry: An entry of the summary's `figures`.
        samples: The result of `inspect_samples`.
        created: Time of creation in ISO format.
    """
    name = f"{entry['task']}-{entry['protocol']}"
    spec = recipe.models[entry["model"]]
    settings = recipe.protocol_sampling(entry["protocol"])
    metrics = {
        figure: {
            "name": figure,
            "value": plain["value"],
            "metadata": {"low": plain["low"], "high": plain["high"], "n": plain["n"]},
        }
        for figure, plain in entry["figures"].items()
        if plain["value"] is not None
    }
    config = {"temperature": settings.temperature, "top_p": settings.top_p, "max_tokens": settings.max_tokens}
    return {
        "version": INSPECT_VERSION,
        "status": "success",
        "eval": {
            "created": created,
            "task": name,
            "task_id": name,
            "run_id": f"llmctl-{entry['model']}",
            "model": f"llmctl/{entry['model']}",
            "model_args": {"model": spec.model, "adapter": entry["adapter"], "engine": spec.engine},
            "model_generate_config": config,
            "dataset": {"name": entry["task"], "samples": entry["problems"]},
            "config": {"epochs": max((s["epoch"] for s in samples), default=1)},
            "metadata": {"protocol": recipe.protocols[entry["protocol"]].model_dump(mode="json")},
        },
        "results": {
            "total_samples": len(samples),
            "completed_samples": len(samples),
            "scores": [{"name": "llmctl", "scorer": "llmctl", "metrics": metrics}],
        },
        "samples": list(samples),
    }


def inspect_samples(
    recipe: JobRecipe,
    group: tuple[str, str, str],
    rows: Sequence[Mapping[str, Any]],
    problems: Mapping[str, Problem],
) -> list[dict[str, Any]]:
    """Samples of a log: one epoch per seed and sample; the turns of an episode are one conversation."""
    episodes: dict[tuple[str, int, int], list[Mapping[str, Any]]] = defaultdict(list)
    for row in rows:
        episodes[(row["problem"], row["seed"], row["sample"])].append(row)
    per_seed = 1 + max(row["sample"] for row in rows)
    return [
        _sample(problems[problem], 1 + recipe.seeds.index(seed) * per_seed + sample, turns, group[0])
        for (problem, seed, sample), turns in episodes.items()
    ]


def _sample(problem: Problem, epoch: int, turns: Sequence[Mapping[str, Any]], model: str) -> dict[str, Any]:
    messages = []
    for turn in turns:
        messages.append({"role": "user", "content": problem.prompt})
        messages.append({"role": "assistant", "content": turn["text"], "model": f"llmctl/{model}"})
    last = turns[-1]
    choice = {"message": messages[-1], "stop_reason": "unknown" if last["error"] else "stop"}
    return {
        "id": problem.id,
        "epoch": epoch,
        "input": problem.prompt,
        "target": problem.answer,
        "messages": messages,
        "output": {
            "model": f"llmctl/{model}",
            "choices": [choice],
            "completion": last["text"],
            "error": last["error"],
        },
        "scores": {
            "llmctl": {
                "value": "C" if last["is_correct"] else "I",
                "answer": last["answer"],
                "metadata": {
                    "reward": last["reward"],
                    "correct_by_turn": [turn["is_correct"] for turn in turns],
                    "tokens": sum(turn["tokens"] for turn in turns),
                },
            }
        },
    }

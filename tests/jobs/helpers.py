"""Jobs without a model or with a tiny one, for the tests of jobs."""

import os
import random
import signal
import time
from pathlib import Path

from llmctl.errors import UserError
from llmctl.jobs.run import Engine, run_job
from llmctl.jobs.spec import JobRecipe
from llmctl.runs import Run, build_recipe, read_journal
from llmctl.sampling.scripted import ScriptedSampler

OPENED = []  # bases that `open_scripted` opened, in this process


def job(**changes):
    """A job of three shards a cell on the sort task."""
    content = {
        "models": {"base": {"model": "m", "engine": "server"}},
        "tasks": {"sort": {"options": {"min_length": 2, "max_length": 2}}},
        "protocols": {"single": {}, "parallel": {"n": 3}, "sequential": {"n": 3}},
        "sampling": {"temperature": 1.0, "max_tokens": 6},
        "limit": 10,
        "shard_size": 4,
    }
    return build_recipe(JobRecipe, content | changes, "job.yaml")


def gambler(chance):
    """Sorts rightly with that chance, and otherwise reverses, or says nothing that can be read."""

    def script(conversation, seed):
        draw = random.Random(seed)
        numbers = [word for word in conversation[-1]["content"].replace(",", " ").split() if word.isdigit()]
        if draw.random() < chance:
            return " ".join(sorted(numbers))
        return draw.choice([" ".join(sorted(numbers, reverse=True)), "nothing"])

    return script


class Scripted(ScriptedSampler):
    """A scripted sampler with adapters: each is better than the one before."""

    def __init__(self, model, adapter):
        super().__init__(gambler(0.2 if adapter is None else 0.9), model)
        self.use_adapter(adapter)

    def use_adapter(self, adapter):
        from dataclasses import replace

        self.script = gambler(0.2 if adapter is None else 0.9)
        self.info = replace(self.info, adapter=adapter)


def open_scripted(model, *, engine, adapter=None, **options):
    """In place of `open_sampler`; the model "broken" can not be opened."""
    if model == "broken":
        raise UserError("broken can not be opened")
    OPENED.append(model)
    return Scripted(model, adapter)


class Deadly(Scripted):
    """Ends its process once, when it is first asked while the file that `model` names is there."""

    def chat(self, conversations, settings=None):
        try:
            os.unlink(self.info.model)
        except FileNotFoundError:
            return super().chat(conversations, settings)
        os.kill(os.getpid(), signal.SIGKILL)


def open_deadly(model, *, engine, adapter=None, **options):
    return Deadly(model, adapter)


class AlwaysDeadly(Scripted):
    def chat(self, conversations, settings=None):
        os.kill(os.getpid(), signal.SIGKILL)


def open_always_deadly(model, *, engine, adapter=None, **options):
    return (AlwaysDeadly if model == "deadly" else Scripted)(model, adapter)


def slow_reply(conversation, seed):
    time.sleep(0.02)
    return "1 2"


def open_slow(model, *, engine, adapter=None, **options):
    return ScriptedSampler(slow_reply, model)


def start(folder, recipe, engine=None, **options):
    """One start of a job; its result."""
    options.setdefault("open_model", open_scripted)
    with Run.open(folder, recipe, "eval run") as run:
        return run_job(run, recipe, engine or Engine(), quiet=True, **options)


def results(folder):
    return (Path(folder) / "results.parquet").read_bytes()


def shard_lines(folder):
    return list(read_journal(Path(folder) / "journal" / "shards.jsonl"))


def rows(folder):
    from pyarrow import parquet

    return parquet.read_table(Path(folder) / "results.parquet").to_pylist()

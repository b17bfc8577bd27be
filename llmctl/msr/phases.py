"""The phases of a run; each does only what its journal lacks, and opens a model only where it is needed.

journal/items.jsonl            descriptions of pictures
journal/users-<arm>.jsonl      summaries of users, block by block; arms with the same summaries share them
journal/finished.jsonl         which of these are whole
data/rows-<arm>.jsonl          training rows
models/<arm>/                  the trained adapter
journal/eval-<model>.jsonl     P(yes) of every candidate, a chunk of users a line
"""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

import numpy as np

from llmctl.errors import UserError
from llmctl.msr.data.prepare import Prepared
from llmctl.msr.evaluation.scores import ModelScores, is_recorded, record_scores
from llmctl.msr.recipe import MsrRecipe
from llmctl.msr.recommender.examples import FINISHED, ITEMS, CaseReader
from llmctl.msr.recommender.prompt import AnswerTokens, Case, Question, find_answer_tokens, training_rows
from llmctl.msr.settings import Arm
from llmctl.msr.summaries.cache import SummaryCache
from llmctl.msr.summaries.cached_llm import Asker
from llmctl.msr.summaries.items import check_reads_images, summarize_items
from llmctl.msr.summaries.users import Summarizer, summarize_users
from llmctl.msr.types import CandidateList
from llmctl.runs import Run, progress
from llmctl.runs.chunks import cut
from llmctl.runs.files import TEMPORARY_SUFFIX
from llmctl.runs.timing import timed
from llmctl.sampling import Sampler, open_sampler
from llmctl.sampling.common import derive_seed
from llmctl.training import TrainResult, TrainSettings
from llmctl.training.fit import Training, fit
from llmctl.training.result import CHECKPOINTS, read_result


class Phases(CaseReader):
    """What the phases of a run share: its data, the cache of summaries, one open model at a time.

    Args:
        run: Open.
        recipe: Resolved.
        prepared: The run's data.
        quiet: No progress.
    """

    run: Run

    def __init__(self, run: Run, recipe: MsrRecipe, prepared: Prepared, quiet: bool = False) -> None:
        super().__init__(run, recipe, prepared)
        self.quiet = quiet
        self.cache = SummaryCache.open(recipe.cache)
        self._asker: Asker | None = None
        self._sampler: Sampler | None = None

    def close(self) -> None:
        """Free models and cache."""
        self._close_models()
        self.cache.close()

    def _close_models(self) -> None:
        if self._asker is not None:
            self._asker.close()
            self._asker = None
        if self._sampler is not None:
            self._sampler.close()
            self._sampler = None

    # Items

    def describe_items(self) -> dict[str, int]:
        """Describe the pictures where the recipe names a model for it; counts by what became of them."""
        settings = self.recipe.items
        if settings.vlm is None or not any(arm.reads_descriptions for arm in self.recipe.resolved_arms):
            return {}
        check_reads_images(settings.vlm)
        self._close_models()
        self._asker = Asker(settings.vlm, settings.sampler, self.cache)
        asker, seed = self._asker, derive_seed(self.recipe.seed, "items")
        counts = summarize_items(self.run, settings, self.prepared, asker, seed, quiet=self.quiet)
        self._finish(ITEMS)
        return counts

    def _finish(self, phase: str) -> None:
        """Note that a phase is done whole; one that was killed has a journal, too."""
        book = self.run.journal(FINISHED)
        if phase not in book:
            book.append(phase, {})

    # Users

    def sum_up_users(self, arm: Arm) -> None:
        """Make the summaries that an arm reads."""
        if arm.users.mode == "none":
            return
        self._close_models()
        self._asker = Asker(arm.users.llm, arm.users.sampler, self.cache)
        seed = derive_seed(self.recipe.seed, "users")
        summarizer = Summarizer(arm.users, self.wording(arm), self._asker, seed)
        users = (history for history, _ in self.train_cases(arm))
        tested = (history for history, _ in self.prepared.cases("test"))
        total = self.train_users(arm) + self.prepared.users("test")
        both = (history for part in (users, tested) for history in part)
        name = self.recipe.summaries_of(arm)
        summarize_users(self.run, name, both, total, summarizer, quiet=self.quiet)
        self._finish(name)

    # Training

    def train(self, arm: Arm) -> TrainResult | None:
        """Train an arm's recommender; None where the recipe trains none."""
        settings = arm.recommender.train
        if settings is None:
            return None
        output = self.run.path(f"models/{arm.name}")
        stored = read_result(output)
        if stored is not None and not (output / CHECKPOINTS).exists():  # else killed before they were removed
            return stored[0]
        self.require_summaries(arm)
        self._close_models()
        rows, settings = self.write_rows(arm, settings)
        training = Training(arm.name, arm.recommender.model, rows, settings, f"models/{arm.name}")
        return fit(self.run, training, label=f"train {arm.name}", quiet=self.quiet)

    def write_rows(self, arm: Arm, settings: TrainSettings) -> tuple[Path, TrainSettings]:
        """Write an arm's training rows; gives their file, and the settings that read it.

        Redrawn negatives make every pass rows of its own, which the trainer goes through once.
        """
        passes = 1 if arm.recommender.negatives == "fixed" else math.ceil(settings.epochs)
        path = self.run.path(f"data/rows-{arm.name}.jsonl")
        learned = ((case, target) for case, target, candidates in self.cases(arm) if candidates is None)
        rows = training_rows(self.question(arm), learned, list(self.titles), passes, self.recipe.seed)
        temporary = path.with_name(f".{path.name}{TEMPORARY_SUFFIX}")
        with temporary.open("w", encoding="utf-8") as file:
            for row in rows:
                file.write(json.dumps(row) + "\n")
        os.replace(temporary, path)
        return path, settings if passes == 1 else settings.model_copy(update={"epochs": 1.0})

    # Evaluation

    def evaluate(self, arm: Arm, model: str) -> None:
        """Score every candidate of the test users; figures are recorded at the end.

        Args:
            arm: Whose model it is.
            model: One of the arm's models.
        """
        if is_recorded(self.run, model):
            return
        self.require_summaries(arm)
        trained = self.trained(arm) if model == arm.name else None
        self._close_models()
        book, total = self.run.journal(f"eval-{model}"), self.prepared.users("test")
        size = arm.recommender.chunk
        question = self.question(arm)
        done = min(total, len(book) * size)
        tokens: AnswerTokens | None = None
        with progress(total, f"evaluate {model}", "users", done=done, quiet=self.quiet) as bar:
            for number, chunk in enumerate(cut(self.tested(arm), size)):
                if (key := f"chunk-{number}") in book:
                    continue
                with timed(self.run, f"{book.path.stem}/{key}"):
                    sampler = self._open_recommender(arm, trained)
                    tokens = tokens or find_answer_tokens(tokenizer_of(sampler), arm.recommender.model)
                    book.append_many(key, score_chunk(sampler, tokens, question, chunk))
                bar.advance(len(chunk))
        self._record(model)

    def _open_recommender(self, arm: Arm, trained: Path | None) -> Sampler:
        if self._sampler is None:
            self._sampler = open_recommender(arm, trained)
            info = self._sampler.info
            self.run.note(engine={"name": info.engine, **info.details})
        return self._sampler

    def _record(self, model: str) -> None:
        scores, mass = read_scores(self.run, model)
        facts = {"answer_mass": float(mass.mean())}
        record_scores(self.run, self.prepared, ModelScores(model, scores, facts=facts), self.recipe.seed)


def open_recommender(arm: Arm, trained: Path | None) -> Sampler:
    """A sampler on an arm's model: as it came (None), or as the folder of its training has it."""
    settings = arm.recommender.sampler
    model, adapter = arm.recommender.model, trained
    if trained is not None and not (trained / "adapter_config.json").is_file():
        model, adapter = str(trained), None  # fully fine-tuned
    return open_sampler(model, engine=settings.engine, adapter=adapter, **settings.options)


def score_chunk(
    sampler: Sampler, tokens: AnswerTokens, question: Question, chunk: list[tuple[Case, CandidateList]]
) -> list[dict[str, Any]]:
    """A record a user: `user`, `yes` (P(yes) of every candidate, in order), `mass` (share on yes or no)."""
    asked = [question.ask(case, item) for case, lists in chunk for item in lists.items]
    rows = iter(sampler.next_token_logprobs(asked, tokens.ids))
    records = []
    for case, lists in chunk:
        found = [tokens.probability(next(rows)) for _ in lists.items]
        records.append(
            {"user": case.user, "yes": [yes for yes, _ in found], "mass": [mass for _, mass in found]}
        )
    return records


def read_scores(run: Run, model: str) -> tuple[Any, Any]:
    """(U, N) P(yes) and (U, N) mass on yes or no, from the journal of an evaluation."""
    records = list(run.journal(f"eval-{model}"))
    return np.array([r["yes"] for r in records]), np.array([r["mass"] for r in records])


def tokenizer_of(sampler: Sampler) -> Any:
    """The vocabulary of a sampler.

    Raises:
        UserError: The engine does not show it.
    """
    found = getattr(sampler, "tokenizer", None)
    if found is None:
        raise UserError(
            f"engine {sampler.info.engine} does not show its vocabulary, but a score is read from the tokens "
            "for yes and no: set recommender.sampler.engine to transformers or vllm"
        )
    return found

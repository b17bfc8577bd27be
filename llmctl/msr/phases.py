"""The phases of a run. Each does only what its journal lacks, and opens a model only where it needs one.

journal/items.jsonl            descriptions of pictures
journal/users-<arm>.jsonl      summaries of users, block by block; arms with the same summaries share them
journal/finished.jsonl         which of these two are complete
data/rows-<arm>.jsonl          training examples
models/<arm>/                  the trained adapter
journal/eval-<model>.jsonl     the probability of yes per candidate, a chunk of users per line
"""

from __future__ import annotations

import json
import math
import os
from pathlib import Path

from llmctl.msr.data.prepared import PreparedData
from llmctl.msr.evaluation.scores import ModelScores, is_recorded, record_scores
from llmctl.msr.recipe import MsrRecipe
from llmctl.msr.recommender.examples import FINISHED, ITEMS, CaseReader
from llmctl.msr.recommender.prompt import AnswerTokens, find_answer_tokens, training_rows
from llmctl.msr.recommender.scoring import open_recommender, read_scores, score_chunk, tokenizer_of
from llmctl.msr.settings import EngineSettings, RecommenderArm
from llmctl.msr.summaries.cache import SummaryCache
from llmctl.msr.summaries.cached_llm import CachedModel
from llmctl.msr.summaries.items import check_reads_images, summarize_items
from llmctl.msr.summaries.users import UserSummarizer, summarize_users
from llmctl.runs import Run, progress
from llmctl.runs.chunks import cut
from llmctl.runs.files import TEMPORARY_SUFFIX
from llmctl.runs.timing import timed
from llmctl.sampling import Sampler
from llmctl.sampling.common import derive_seed
from llmctl.training import TrainResult, TrainSettings
from llmctl.training.fit import Training, fit
from llmctl.training.result import CHECKPOINTS, read_result


class MsrPhases:
    """The phases of a run, with what they share: its data, the cache of summaries, one open model at a time.

    Args:
        run: Open.
        recipe: Resolved.
        prepared: The run's data.
        quiet: Show no progress.
    """

    def __init__(self, run: Run, recipe: MsrRecipe, prepared: PreparedData, quiet: bool = False) -> None:
        self.run, self.recipe, self.prepared, self.quiet = run, recipe, prepared, quiet
        self.reader = CaseReader(run, recipe, prepared)
        self.cache = SummaryCache.open(recipe.cache)
        self._model: CachedModel | None = None
        self._sampler: Sampler | None = None

    def close(self) -> None:
        """Free models and cache."""
        self._close_models()
        self.cache.close()

    def _close_models(self) -> None:
        if self._model is not None:
            self._model.close()
            self._model = None
        if self._sampler is not None:
            self._sampler.close()
            self._sampler = None

    def _open_model(self, name: str, engine: EngineSettings) -> CachedModel:
        """The model of a summarizer; the model that was open before is closed."""
        self._close_models()
        self._model = CachedModel(name, engine, self.cache)
        return self._model

    def _finish(self, phase: str) -> None:
        """Record that a phase is complete: the journal of a killed phase exists, too."""
        book = self.run.journal(FINISHED)
        if phase not in book:
            book.append(phase, {})

    # Summaries

    def describe_items(self) -> dict[str, int]:
        """Describe the pictures, where the recipe names a model for it; gives the items by status."""
        settings = self.recipe.items
        if settings.vlm is None or not any(arm.reads_descriptions for arm in self.recipe.resolved_arms):
            return {}
        check_reads_images(settings.vlm)
        model, seed = self._open_model(settings.vlm, settings.sampler), derive_seed(self.recipe.seed, "items")
        counts = summarize_items(self.run, settings, self.prepared, model, seed, quiet=self.quiet)
        self._finish(ITEMS)
        return counts

    def summarize_users(self, arm: RecommenderArm) -> None:
        """Make the user summaries that an arm reads."""
        if arm.users.mode == "none":
            return
        model, seed = (
            self._open_model(arm.users.llm, arm.users.sampler),
            derive_seed(self.recipe.seed, "users"),
        )
        summarizer = UserSummarizer(arm.users, self.reader.wording(arm), model, seed)
        histories = (history for history, _, _ in self.reader.histories(arm))
        total = self.reader.train_users(arm) + self.prepared.users("test")
        name = self.recipe.summaries_of(arm)
        summarize_users(self.run, name, histories, total, summarizer, quiet=self.quiet)
        self._finish(name)

    # Training

    def train(self, arm: RecommenderArm) -> TrainResult | None:
        """Train an arm's recommender; None where its recipe has no training."""
        settings = arm.recommender.train
        if settings is None:
            return None
        output = self.run.path(f"models/{arm.name}")
        stored = read_result(output)
        if stored is not None and not (output / CHECKPOINTS).exists():  # else killed before they were removed
            return stored[0]
        self.reader.require_summaries(arm)
        self._close_models()
        rows, settings = self.write_rows(arm, settings)
        training = Training(arm.name, arm.recommender.model, rows, settings, f"models/{arm.name}")
        return fit(self.run, training, label=f"train {arm.name}", quiet=self.quiet)

    def write_rows(self, arm: RecommenderArm, settings: TrainSettings) -> tuple[Path, TrainSettings]:
        """Write an arm's training examples; gives their file, and the settings to train on it.

        Where negatives are redrawn, the file has the examples of every epoch, and the trainer reads it once.
        """
        epochs = 1 if arm.recommender.negatives == "fixed" else math.ceil(settings.epochs)
        path, reader = self.run.path(f"data/rows-{arm.name}.jsonl"), self.reader
        learned = ((case, target) for case, target, candidates in reader.cases(arm) if candidates is None)
        rows = training_rows(reader.question(arm), learned, list(reader.titles), epochs, self.recipe.seed)
        temporary = path.with_name(f".{path.name}{TEMPORARY_SUFFIX}")
        with temporary.open("w", encoding="utf-8") as file:
            for row in rows:
                file.write(json.dumps(row.to_dict()) + "\n")
        os.replace(temporary, path)
        return path, settings if epochs == 1 else settings.model_copy(update={"epochs": 1.0})

    # Evaluation

    def evaluate(self, arm: RecommenderArm, model: str) -> None:
        """Score every candidate of the test users, then record the metrics.

        Args:
            arm: The arm of the model.
            model: One of the arm's models.
        """
        if is_recorded(self.run, model):
            return
        self.reader.require_summaries(arm)
        trained = self.reader.trained(arm) if model == arm.name else None
        self._close_models()
        book, total = self.run.journal(f"eval-{model}"), self.prepared.users("test")
        size = arm.recommender.chunk
        question = self.reader.question(arm)
        done = min(total, len(book) * size)
        tokens: AnswerTokens | None = None
        with progress(total, f"evaluate {model}", "users", done=done, quiet=self.quiet) as bar:
            for number, chunk in enumerate(cut(self.reader.tested(arm), size)):
                if (key := f"chunk-{number}") in book:
                    continue
                with timed(self.run, f"{book.path.stem}/{key}"):
                    sampler = self._open_recommender(arm, trained)
                    tokens = tokens or find_answer_tokens(tokenizer_of(sampler), arm.recommender.model)
                    ranked = score_chunk(sampler, tokens, question, chunk)
                    book.append_many(key, [one.to_record() for one in ranked])
                bar.advance(len(chunk))
        self._record(model)

    def _open_recommender(self, arm: RecommenderArm, trained: Path | None) -> Sampler:
        if self._sampler is None:
            self._sampler = open_recommender(arm, trained)
            info = self._sampler.info
            self.run.note(engine={"name": info.engine, **info.details})
        return self._sampler

    def _record(self, model: str) -> None:
        scores, mass = read_scores(self.run, model)
        facts = {"answer_mass": float(mass.mean())}
        record_scores(self.run, self.prepared, ModelScores(model, scores, facts=facts), self.recipe.seed)

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
import time
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from llmctl.errors import UserError
from llmctl.models.quiet import quiet_libraries
from llmctl.msr.asking import Asker
from llmctl.msr.items import check_reads_images, cut, descriptions, note_seconds, summarize_items
from llmctl.msr.prepare import Prepared
from llmctl.msr.recipe import MsrRecipe
from llmctl.msr.recommend import AnswerTokens, Case, Question, find_answer_tokens, training_rows
from llmctl.msr.scores import ModelScores, is_recorded, record_scores
from llmctl.msr.settings import Arm
from llmctl.msr.summary_cache import SummaryCache
from llmctl.msr.types import CandidateList, History
from llmctl.msr.users import Summarizer, Wording, iterate_summaries, summarize_users
from llmctl.pictures import read_picture
from llmctl.runs import Run, progress
from llmctl.runs.files import TEMPORARY_SUFFIX
from llmctl.sampling import Sampler, open_sampler
from llmctl.sampling.common import derive_seed
from llmctl.training import TrainResult, TrainSettings

FINISHED = "finished"  # the journal of phases that are done whole
ITEMS = "items"


class Phases:
    """What the phases of a run share: its data, the cache of summaries, one open model at a time.

    Args:
        run: Open.
        recipe: Resolved.
        prepared: The run's data.
        quiet: No progress.
    """

    def __init__(self, run: Run, recipe: MsrRecipe, prepared: Prepared, quiet: bool = False) -> None:
        self.run, self.recipe, self.prepared, self.quiet = run, recipe, prepared, quiet
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

    def require_summaries(self, arm: Arm) -> None:
        """Refuse to go on without all that an arm reads.

        Raises:
            UserError: Descriptions of items or summaries of users are missing.
        """
        needed = {}
        if self.recipe.items.vlm is not None and arm.reads_descriptions:
            needed[ITEMS] = "descriptions of items", "summarize-items"
        if arm.users.mode != "none":
            needed[self.recipe.summaries_of(arm)] = "summaries of users", "summarize-users"
        for phase, (what, command) in needed.items():
            if phase not in self.run.journal(FINISHED):
                raise UserError(
                    f"arm {arm.name} reads {what}, which are not all there yet: run `llmctl msr {command}` "
                    "or `llmctl msr run` first"
                )

    @cached_property
    def titles(self) -> dict[str, str]:
        """The title of every item."""
        return {item.id: item.title for item in self.prepared.items()}

    @cached_property
    def said(self) -> dict[str, str]:
        """What is said of every item beside its title."""
        return descriptions(self.run, self.prepared)

    @cached_property
    def images(self) -> dict[str, str]:
        """The pictures that can be read.

        Raises:
            UserError: There are none.
        """
        found = {}
        for item in self.prepared.items():
            limit = self.recipe.items.max_megapixels
            if item.image is not None and read_picture(item.image, max_megapixels=limit).image is not None:
                found[item.id] = item.image
        if not found:
            raise UserError(
                "recommender.variant is image, but no item has a picture that can be read: give data.images, "
                "or set recommender.variant=text"
            )
        return found

    def wording(self, arm: Arm) -> Wording:
        """How items are put into words for an arm."""
        items = self.recipe.items
        said = self.said if arm.reads_descriptions else {}
        return Wording(self.titles, said, items.title_chars, items.text_chars)

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

    def train_users(self, arm: Arm) -> int:
        """How many training users an arm learns from."""
        if arm.recommender.train is None:
            return 0
        total = self.prepared.users("train")
        limit = arm.recommender.train_users
        return total if limit is None else min(limit, total)

    def train_cases(self, arm: Arm) -> Iterator[tuple[History, str]]:
        """The training users of an arm, in the order of the data, each with the last item as target."""
        wanted, total = self.train_users(arm), self.prepared.users("train")
        rng = np.random.default_rng(derive_seed(self.recipe.seed, "train users"))
        chosen = np.zeros(total, bool)
        chosen[rng.permutation(total)[:wanted]] = True
        for is_chosen, sequence in zip(chosen, self.prepared.sequences("train"), strict=True):
            if is_chosen:
                yield sequence.split_last()

    # What the recommender is asked

    def question(self, arm: Arm) -> Question:
        """How an arm asks about candidates."""
        images = self.images if arm.recommender.variant == "image" else {}
        return Question(arm, self.wording(arm), images, self.recipe.items.max_side)

    def cases(self, arm: Arm) -> Iterator[tuple[Case, str, CandidateList | None]]:
        """Training users, then test users, each with target, and with candidates where there are some."""
        fit = self._fitting(arm)

        def sources() -> Iterator[tuple[History, str, CandidateList | None]]:
            for history, target in self.train_cases(arm):
                yield history, target, None
            for history, candidates in self.prepared.cases("test"):
                yield history, candidates.target, candidates

        if arm.users.mode == "none":
            for history, target, candidates in sources():
                yield Case(history.user, fit(history), history), target, candidates
            return
        book = self.run.journal(self.recipe.summaries_of(arm))
        summaries = iterate_summaries(book, arm.users.chunk, (history.user for history, _, _ in sources()))
        for (history, target, candidates), summary in zip(sources(), summaries, strict=True):
            yield Case(history.user, summary or fit(history), history), target, candidates

    def _fitting(self, arm: Arm) -> Any:
        """A function that lists the last items of a history, as many as the context has room for."""
        from llmctl.models.description import describe
        from llmctl.models.loading import load_tokenizer

        wording, tokenizer = self.wording(arm), load_tokenizer(arm.recommender.model)
        train = arm.recommender.train
        limits = [describe(arm.recommender.model)["context_length"], train.max_length if train else None]
        limit = min((number for number in limits if number is not None), default=1024)
        room = limit - self._longest_question(arm, tokenizer)

        def fit(history: History) -> str:
            items = history.items[-arm.users.history :] if arm.users.history else history.items
            for dropped in range(len(items)):
                text = wording.list(items[dropped:])
                if dropped == len(items) - 1 or len(tokenizer(text, verbose=False).input_ids) <= room:
                    return text
            return ""

        return fit

    def _longest_question(self, arm: Arm, tokenizer: Any) -> int:
        """Tokens of the question about the item that takes most, without preferences, and of the template."""
        line = max((self.wording(arm).line(item) for item in self.titles), key=len)
        text = arm.recommender.prompt.replace("{candidate}", line)
        return len(tokenizer(text, verbose=False).input_ids) + 64

    # Training

    def train(self, arm: Arm) -> TrainResult | None:
        """Train an arm's recommender; None where the recipe trains none."""
        settings = arm.recommender.train
        if settings is None:
            return None
        self.require_summaries(arm)
        self._close_models()
        rows, settings = self.write_rows(arm, settings)
        output = self.run.path(f"models/{arm.name}")
        with progress(None, f"train {arm.name}", "steps", quiet=self.quiet) as bar, quiet_libraries():
            from llmctl.training import train
            from llmctl.training.sft import step_reporter

            report = step_reporter(bar)
            return train(arm.recommender.model, rows, settings, output, progress=report)

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
        tested = ((case, lists) for case, _, lists in self.cases(arm) if lists is not None)
        done = min(total, len(book) * size)
        tokens: AnswerTokens | None = None
        with progress(total, f"evaluate {model}", "users", done=done, quiet=self.quiet) as bar:
            for number, chunk in enumerate(cut(tested, size)):
                if (key := f"chunk-{number}") in book:
                    continue
                began = time.perf_counter()
                sampler = self._open_recommender(arm, trained)
                tokens = tokens or find_answer_tokens(tokenizer_of(sampler), arm.recommender.model)
                book.append_many(key, score_chunk(sampler, tokens, question, chunk))
                note_seconds(self.run, f"{book.path.stem}/{key}", began)
                bar.advance(len(chunk))
        self._record(model)

    def trained(self, arm: Arm) -> Path:
        """The folder of an arm's trained adapter or model.

        Raises:
            UserError: It is not trained yet.
        """
        folder = self.run.folder / "models" / arm.name
        if not (folder / "train_result.json").is_file():
            raise UserError(f"{folder} is not trained yet: run `llmctl msr train` or `llmctl msr run` first")
        return folder

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

    def case_of(self, arm: Arm, user: str) -> Case:
        """A user of the training or the test data, with what an arm knows of the preferences.

        Raises:
            UserError: The run has no such user, or no summary.
        """
        for case, _, _ in self.cases(arm):
            if case.user == user:
                return case
        raise UserError(
            f"user {user!r} is not among the {self.train_users(arm):,} training and "
            f"{self.prepared.users('test'):,} test users of the run: give one of those"
        )


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

"""Read what an arm's recommender is prompted with: the users of a run, their preferences, their candidates.

Everything is read from the run's folder, and nothing is written there.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from llmctl.errors import UserError
from llmctl.msr.data.prepared import Journals, PreparedData, StoredRun, open_prepared, run_recipe
from llmctl.msr.recipe import MsrRecipe
from llmctl.msr.recommender.prompt import Case, Question
from llmctl.msr.settings import RecommenderArm
from llmctl.msr.summaries.items import JOURNAL as ITEMS
from llmctl.msr.summaries.items import descriptions
from llmctl.msr.summaries.users import iterate_summaries
from llmctl.msr.summaries.wording import Wording
from llmctl.msr.types import CandidateList, History
from llmctl.pictures import read_picture
from llmctl.runs.files import to_json
from llmctl.sampling.common import derive_seed

FINISHED = "finished"  # the journal of phases that are complete


@dataclass(frozen=True)
class RequiredJournal:
    """A journal that an arm reads."""

    name: str
    content: str  # in words, for messages
    command: str  # the subcommand of `llmctl msr` that fills it


class CaseReader:
    """The users of a run, each with the preferences that an arm shows its recommender.

    Args:
        run: The run's folder.
        recipe: The run's recipe.
        prepared: The run's data.
    """

    def __init__(self, run: Journals, recipe: MsrRecipe, prepared: PreparedData) -> None:
        self.run, self.recipe, self.prepared = run, recipe, prepared

    @classmethod
    def open(cls, folder: Path) -> CaseReader:
        """Open a run's folder without its lock.

        Raises:
            UserError: It is no msr run, has no prepared data, or its candidate lists were changed.
        """
        recipe = run_recipe(folder)
        return cls(StoredRun(folder), recipe, open_prepared(folder))

    @cached_property
    def titles(self) -> dict[str, str]:
        """The title of every item."""
        return {item.id: item.title for item in self.prepared.items()}

    @cached_property
    def descriptions(self) -> dict[str, str]:
        """The description of every item."""
        return descriptions(self.run, self.prepared)

    @cached_property
    def images(self) -> dict[str, str]:
        """The paths of the pictures that can be read, by item.

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

    def wording(self, arm: RecommenderArm) -> Wording:
        """How an arm's prompts show items."""
        items = self.recipe.items
        shown = self.descriptions if arm.reads_descriptions else {}
        return Wording(self.titles, shown, items.title_chars, items.text_chars)

    def question(self, arm: RecommenderArm) -> Question:
        """How an arm prompts for candidates."""
        images = self.images if arm.recommender.variant == "image" else {}
        return Question(arm, self.wording(arm), images, self.recipe.items.max_side)

    def train_users(self, arm: RecommenderArm) -> int:
        """The number of training users of an arm."""
        if arm.recommender.train is None:
            return 0
        total = self.prepared.users("train")
        limit = arm.recommender.train_users
        return total if limit is None else min(limit, total)

    def train_cases(self, arm: RecommenderArm) -> Iterator[tuple[History, str]]:
        """The training users of an arm, in the order of the data, each with the last item as target."""
        wanted, total = self.train_users(arm), self.prepared.users("train")
        rng = np.random.default_rng(derive_seed(self.recipe.seed, "train users"))
        chosen = np.zeros(total, bool)
        chosen[rng.permutation(total)[:wanted]] = True
        for is_chosen, sequence in zip(chosen, self.prepared.sequences("train"), strict=True):
            if is_chosen:
                yield sequence.split_last()

    def histories(self, arm: RecommenderArm) -> Iterator[tuple[History, str, CandidateList | None]]:
        """Training users, then test users, each with the target; test users with their candidates."""
        for history, target in self.train_cases(arm):
            yield history, target, None
        for history, candidates in self.prepared.cases("test"):
            yield history, candidates.target, candidates

    def cases(self, arm: RecommenderArm) -> Iterator[tuple[Case, str, CandidateList | None]]:
        """Like `histories`, with the preferences that the arm shows."""
        fit = self._fitting(arm)
        if arm.users.mode == "none":
            for history, target, candidates in self.histories(arm):
                yield Case(history.user, fit(history), history), target, candidates
            return
        book = self.run.journal(self.recipe.summaries_of(arm))
        users = (history.user for history, _, _ in self.histories(arm))
        summaries = iterate_summaries(book, arm.users.chunk, users)
        for (history, target, candidates), summary in zip(self.histories(arm), summaries, strict=True):
            yield Case(history.user, summary or fit(history), history), target, candidates

    def tested(self, arm: RecommenderArm) -> Iterator[tuple[Case, CandidateList]]:
        """The test users with their candidates, in the order of the data."""
        if arm.users.mode == "none":  # there is no journal to read through, so training users are skipped
            fit = self._fitting(arm)
            for history, candidates in self.prepared.cases("test"):
                yield Case(history.user, fit(history), history), candidates
            return
        for case, _, found in self.cases(arm):
            if found is not None:
                yield case, found

    def case_of(self, arm: RecommenderArm, user: str) -> Case:
        """A training or test user, with the preferences that an arm shows.

        Raises:
            UserError: The run has no such user.
        """
        for case, _, _ in self.cases(arm):
            if case.user == user:
                return case
        known = next(history.user for history, _ in self.prepared.cases("test"))
        raise UserError(
            f"user {user!r} is not among the {self.train_users(arm):,} training and "
            f"{self.prepared.users('test'):,} test users of the run: give one of those, such as {known}"
        )

    def required(self, arm: RecommenderArm) -> list[RequiredJournal]:
        """The journals that an arm reads."""
        needed = []
        if self.recipe.items.vlm is not None and arm.reads_descriptions:
            needed.append(RequiredJournal(ITEMS, "descriptions of items", "summarize-items"))
        if arm.users.mode != "none":
            name = self.recipe.summaries_of(arm)
            needed.append(RequiredJournal(name, "summaries of users", "summarize-users"))
        return needed

    def require_summaries(self, arm: RecommenderArm) -> None:
        """Refuse to go on without the summaries that an arm reads.

        Raises:
            UserError: Descriptions of items or summaries of users are missing.
        """
        for one in self.required(arm):
            if one.name not in self.run.journal(FINISHED):
                raise UserError(
                    f"arm {arm.name} reads {one.content}, which are not all there yet: run "
                    f"`llmctl msr {one.command}` or `llmctl msr run` first"
                )

    def digest(self, arm: RecommenderArm) -> str:
        """A hash of all that determines an arm's prompts: lists, summaries, descriptions, settings.

        Raises:
            UserError: A journal cannot be read.
        """
        settings = [arm.model_dump(mode="json"), self.recipe.items.model_dump(mode="json")]
        found = hashlib.sha256(to_json([self.prepared.candidate_hash, *settings]).encode())
        for one in self.required(arm):
            for record in self.run.journal(one.name):
                found.update(to_json(record).encode())
        return found.hexdigest()[:16]

    def trained(self, arm: RecommenderArm) -> Path:
        """The folder of an arm's trained adapter or model.

        Raises:
            UserError: The arm is not trained yet.
        """
        folder = self.run.folder / "models" / arm.name
        if not (folder / "train_result.json").is_file():
            raise UserError(f"{folder} is not trained yet: run `llmctl msr train` or `llmctl msr run` first")
        return folder

    def _fitting(self, arm: RecommenderArm) -> Callable[[History], str]:
        """A function that lists as many of a history's last items as fit into the context."""
        from llmctl.models.description import describe
        from llmctl.models.loading import load_tokenizer

        wording, tokenizer = self.wording(arm), load_tokenizer(arm.recommender.model)
        train = arm.recommender.train
        limits = [describe(arm.recommender.model)["context_length"], train.max_length if train else None]
        limit = min((number for number in limits if number is not None), default=1024)
        room = limit - self._longest_prompt(arm, tokenizer)

        def fit(history: History) -> str:
            items = history.items[-arm.users.history :] if arm.users.history else history.items
            for dropped in range(len(items)):
                text = wording.list(items[dropped:])
                if dropped == len(items) - 1 or len(tokenizer(text, verbose=False).input_ids) <= room:
                    return text
            return ""

        return fit

    def _longest_prompt(self, arm: RecommenderArm, tokenizer: Any) -> int:
        """Tokens of the prompt for the longest item, without preferences; 64 more for the chat template."""
        line = max((self.wording(arm).line(item) for item in self.titles), key=len)
        text = arm.recommender.prompt.replace("{candidate}", line)
        return len(tokenizer(text, verbose=False).input_ids) + 64

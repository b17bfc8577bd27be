"""What a recommender is asked: the users of a run, what is known of them, and their candidates.

All of it is read from the run's folder, and nothing is written there.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from llmctl.errors import UserError
from llmctl.msr.data.prepare import Prepared, open_prepared
from llmctl.msr.data.stored import Journals, StoredRun, run_recipe
from llmctl.msr.recipe import MsrRecipe
from llmctl.msr.recommender.prompt import Case, Question
from llmctl.msr.settings import Arm
from llmctl.msr.summaries.items import descriptions
from llmctl.msr.summaries.users import Wording, iterate_summaries
from llmctl.msr.types import CandidateList, History
from llmctl.pictures import read_picture
from llmctl.runs.files import to_json
from llmctl.sampling.common import derive_seed

FINISHED = "finished"  # the journal of phases that are done whole
ITEMS = "items"


class CaseReader:
    """The users of a run, each with what an arm knows of the preferences.

    Args:
        run: The folder.
        recipe: Its recipe.
        prepared: Its data.
    """

    def __init__(self, run: Journals, recipe: MsrRecipe, prepared: Prepared) -> None:
        self.run, self.recipe, self.prepared = run, recipe, prepared

    @classmethod
    def open(cls, folder: Path) -> CaseReader:
        """Of a run's folder, which need not be free.

        Raises:
            UserError: It is no msr run, has no prepared data, or its candidate lists were changed.
        """
        recipe = run_recipe(folder)
        return cls(StoredRun(folder), recipe, open_prepared(folder))

    def tested(self, arm: Arm) -> Iterator[tuple[Case, CandidateList]]:
        """The test users with their candidates, in the order of the data."""
        if arm.users.mode == "none":  # no journal to go through, so training users need not be looked at
            fit = self._fitting(arm)
            for history, candidates in self.prepared.cases("test"):
                yield Case(history.user, fit(history), history), candidates
            return
        for case, _, found in self.cases(arm):
            if found is not None:
                yield case, found

    def digest(self, arm: Arm) -> str:
        """A hash of all that decides what an arm asks: lists, summaries, descriptions, settings.

        Raises:
            UserError: A journal can not be read.
        """
        settings = [arm.model_dump(mode="json"), self.recipe.items.model_dump(mode="json")]
        found = hashlib.sha256(to_json([self.prepared.candidate_hash, *settings]).encode())
        for name in self._read_by(arm):
            for record in self.run.journal(name):
                found.update(to_json(record).encode())
        return found.hexdigest()[:16]

    def _read_by(self, arm: Arm) -> dict[str, tuple[str, str]]:
        """The journals that an arm reads: what is in them, and the command that fills them."""
        needed = {}
        if self.recipe.items.vlm is not None and arm.reads_descriptions:
            needed[ITEMS] = "descriptions of items", "summarize-items"
        if arm.users.mode != "none":
            needed[self.recipe.summaries_of(arm)] = "summaries of users", "summarize-users"
        return needed

    def require_summaries(self, arm: Arm) -> None:
        """Refuse to go on without all that an arm reads.

        Raises:
            UserError: Descriptions of items or summaries of users are missing.
        """
        for phase, (what, command) in self._read_by(arm).items():
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

    def trained(self, arm: Arm) -> Path:
        """The folder of an arm's trained adapter or model.

        Raises:
            UserError: It is not trained yet.
        """
        folder = self.run.folder / "models" / arm.name
        if not (folder / "train_result.json").is_file():
            raise UserError(f"{folder} is not trained yet: run `llmctl msr train` or `llmctl msr run` first")
        return folder

    def case_of(self, arm: Arm, user: str) -> Case:
        """A user of the training or the test data, with what an arm knows of the preferences.

        Raises:
            UserError: The run has no such user, or no summary.
        """
        for case, _, _ in self.cases(arm):
            if case.user == user:
                return case
        known = next(history.user for history, _ in self.prepared.cases("test"))
        raise UserError(
            f"user {user!r} is not among the {self.train_users(arm):,} training and "
            f"{self.prepared.users('test'):,} test users of the run: give one of those, such as {known}"
        )

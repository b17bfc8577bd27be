"""Check the witnesses of a curve again elsewhere; each outcome is one line of a journal."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from llmctl.models.loading import load
from llmctl.reach.curves.recheck import Recheck, recheck, recheck_with_sampler
from llmctl.reach.curves.recipe import CurveRecipe
from llmctl.reach.result import Result
from llmctl.runs import Run, progress
from llmctl.sampling import open_sampler

RECHECKS = "rechecks"
_PART = 32  # witnesses between two looks at the journal


def recheck_curve(run: Run, recipe: CurveRecipe, results: Sequence[Result], *, quiet: bool = False) -> None:
    """Check every witness again in every place that the recipe names.

    Args:
        run: Open; its journal `rechecks` is filled.
        recipe: Resolved.
        results: The results of the curve; those without a witness are left out.
        quiet: Show no progress.

    Raises:
        UserError: A place is not available, e.g. vLLM is not installed.
    """
    book = run.journal(RECHECKS)
    for place in recipe.recheck:
        missing = [r for r in results if r.is_reached and f"{place}|{r.id}" not in book]
        if not missing:
            continue
        checker = _Checker(recipe, place)
        try:
            done = sum(r.is_reached for r in results) - len(missing)
            with progress(
                done + len(missing), f"recheck {place}", "witnesses", done=done, quiet=quiet
            ) as bar:
                for start in range(0, len(missing), _PART):
                    for entry in checker.check(missing[start : start + _PART]):
                        book.append(f"{place}|{entry.id}", {**entry.to_dict(), "place": place})
                        bar.advance()
        finally:
            checker.close()


def recheck_marks(run: Run) -> dict[str, dict[str, bool]]:
    """By pair: whether its witness holds in each place, named as the engine names it."""
    marks: dict[str, dict[str, bool]] = defaultdict(dict)
    for line in run.journal(RECHECKS):
        marks[line["id"]][line["where"]] = line["holds"]
    return dict(marks)


class _Checker:
    """A model in another dtype, or a sampler of vLLM."""

    def __init__(self, recipe: CurveRecipe, place: str) -> None:
        self._sampler: Any = None
        self._loaded: Any = None
        if place == "vllm":
            adapter = None if recipe.adapter is None else str(recipe.adapter)
            self._sampler = open_sampler(recipe.model, engine="vllm", adapter=adapter)
            return
        options = {**recipe.load.options(), "dtype": place}
        self._loaded = load(recipe.model, adapter=recipe.adapter, **options)

    def check(self, results: Sequence[Result]) -> list[Recheck]:
        """One outcome for each witness."""
        if self._sampler is not None:
            return recheck_with_sampler(results, self._sampler)
        return recheck(results, self._loaded.model, self._loaded.tokenizer)

    def close(self) -> None:
        """Free its memory."""
        if self._sampler is not None:
            self._sampler.close()
        self._loaded = None

"""Chunks of problems, each saved as one journal line when it is done.

The seeds of a chunk depend on its number alone, so a chunk that is repeated after the process was killed
gives the same records.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial

from llmctl.rise.estimate import FINISHED
from llmctl.rise.records import Episode, Evaluation
from llmctl.runs import Run, progress
from llmctl.runs.chunks import cut
from llmctl.runs.timing import timed
from llmctl.sampling import Sampler
from llmctl.tasks import Problem

Records = Sequence[Episode] | Sequence[Evaluation]
Work = Callable[[int, Sequence[Problem]], Records]


@dataclass(frozen=True)
class ChunkedPhase:
    """A phase that samples, chunk by chunk."""

    name: str
    """Name of its journal."""
    total: int
    """Number of problems in the recipe; the task may have fewer."""
    size: int
    """Number of problems per chunk."""
    samplers: Callable[[], Mapping[str, Sampler]]
    """Opens the samplers; a journal line holds what each of them used, by these names."""


class ChunkRunner:
    """Runs the chunks of a phase that its journal does not have yet.

    Args:
        run: Open; the journals are in its folder.
        quiet: Whether to leave out the progress bar.
    """

    def __init__(self, run: Run, quiet: bool = False) -> None:
        self._run, self._quiet = run, quiet

    def run(self, phase: ChunkedPhase, problems: Iterable[Problem], work: Work) -> int | None:
        """Run the missing chunks.

        Args:
            phase: Where the records go.
            problems: All problems of the phase, in order.
            work: Takes the number of a chunk and its problems, and returns their records.

        Returns:
            The number of problems; None where the phase was finished before. The phase counts as finished
            only where there were problems.
        """
        book, finished = self._run.journal(phase.name), self._run.journal(FINISHED)
        if phase.name in finished:
            return None
        seen = 0
        done = min(phase.total, len(book) * phase.size)
        label = phase.name.replace("-", " ")
        with progress(phase.total, label, "problems", done=done, quiet=self._quiet) as bar:
            for number, chunk in enumerate(cut(problems, phase.size)):
                seen += len(chunk)
                if (key := f"chunk-{number}") in book:
                    continue
                self._run_chunk(phase, key, partial(work, number, chunk))
                bar.advance(len(chunk))
        if seen:
            finished.append(phase.name, {"problems": seen})
        return seen

    def _run_chunk(self, phase: ChunkedPhase, key: str, work: Callable[[], Records]) -> None:
        """Append a line with records and token counts, then one with the seconds, without model loading."""
        samplers = phase.samplers()
        before = {name: sampler.usage.snapshot() for name, sampler in samplers.items()}
        with timed(self._run, f"{phase.name}/{key}"):
            records = [record.to_dict() for record in work()]
            usage = {name: asdict(sampler.usage.since(before[name])) for name, sampler in samplers.items()}
            self._run.journal(phase.name).append(key, {**usage, "records": records})


def read_episodes(run: Run, iteration: int) -> Iterator[Episode]:
    """The collected episodes of an iteration, one at a time."""
    for line in run.journal(f"collect-{iteration}"):
        yield from map(Episode.from_dict, line["records"])


def read_evaluations(run: Run, stage: int) -> Iterator[Evaluation]:
    """The records of an evaluation after that many iterations, one at a time."""
    for line in run.journal(f"evaluate-{stage}"):
        yield from map(Evaluation.from_dict, line["records"])

"""Chunks: one journal line each, only the missing ones are run, and records come back typed."""

from llmctl.rise.chunks import ChunkedPhase, ChunkRunner, read_evaluations
from llmctl.rise.recipe import RiseRecipe
from llmctl.runs import Run
from llmctl.sampling.scripted import ScriptedSampler

from .helpers import problems, record

PHASE = ChunkedPhase("evaluate-0", 5, 2, lambda: {"usage": ScriptedSampler(lambda *_: "a")})


def work(numbers):
    def one(number, chunk):
        numbers.append(number)
        return [record("RW", "RW", problem.id) for problem in chunk]

    return one


def test_every_chunk_is_a_line_and_a_finished_phase_is_not_run_again(tmp_path):
    with Run.open(tmp_path / "run", RiseRecipe(), "test") as run:
        ran = []
        runner = ChunkRunner(run, quiet=True)
        assert runner.run(PHASE, problems(5), work(ran)) == 5
        assert runner.run(PHASE, problems(5), work(ran)) is None
        assert ran == [0, 1, 2]
        lines = list(run.journal("evaluate-0"))
        assert [line["key"] for line in lines] == ["chunk-0", "chunk-1", "chunk-2"]
        assert [len(line["records"]) for line in lines] == [2, 2, 1]
        assert lines[0]["usage"]["calls"] == 0
        assert [found.problem for found in read_evaluations(run, 0)] == [p.id for p in problems(5)]


def test_only_missing_chunks_are_run(tmp_path):
    with Run.open(tmp_path / "run", RiseRecipe(), "test") as run:
        run.journal("evaluate-0").append("chunk-1", {"records": []})
        ran = []
        ChunkRunner(run, quiet=True).run(PHASE, problems(5), work(ran))
        assert ran == [0, 2]


def test_a_phase_without_problems_is_not_finished(tmp_path):
    with Run.open(tmp_path / "run", RiseRecipe(), "test") as run:
        assert ChunkRunner(run, quiet=True).run(PHASE, [], work([])) == 0
        assert "evaluate-0" not in run.journal("finished")

"""Protocols by name: the built-in ones, and one of another package."""

import sys

import pytest

from llmctl.errors import UserError
from llmctl.jobs.protocols.base import JobProtocol, even_bounds, problems_caption
from llmctl.jobs.protocols.registry import PROTOCOLS
from llmctl.runs.recipe import recipe_content

from ..helpers import job, rows, start

BUILTIN = ["single", "parallel", "sequential", "reach_curve", "msr_ranking"]

GUEST = '''
from llmctl.jobs.metrics import estimate, stack
from llmctl.jobs.protocols.base import JobProtocol, PrimaryMetric
from llmctl.jobs.protocols.sampled import run_samples


class Shout(JobProtocol):
    """One sample per problem, in capitals."""

    description = "one sample per problem, in capitals"
    reading = "`loud` is the share of right samples."
    fields = frozenset({"options"})

    def check(self, spec):
        if set(spec.options) - {"mark"}:
            raise ValueError("shout has the option mark alone")

    def open(self, context, name):
        run = run_samples(context, name, 1)
        mark = context.recipe.protocols[name].options.get("mark", "!")

        def shout(sampler, shard):
            return [row._replace(text=row.text.upper() + mark) for row in run(sampler, shard)]

        return shout

    def metrics(self, results):
        return {"loud": estimate(stack(results.groups, "first"), results.bootstrap_seed)}

    def primary(self, spec):
        return PrimaryMetric("loud", "first")


PROTOCOL = Shout()
'''


@pytest.fixture
def guest(tmp_path, monkeypatch):
    """An installed package with the protocol `shout`; the registry reads entry points anew."""
    folder = tmp_path / "site"
    info = folder / "guest-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: guest\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[llmctl.protocols]\nshout = guest_protocols:PROTOCOL\n")
    (folder / "guest_protocols.py").write_text(GUEST)
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setattr(PROTOCOLS, "_found", None)
    monkeypatch.setattr(PROTOCOLS, "_loaded", {})
    yield
    sys.modules.pop("guest_protocols", None)


def test_every_built_in_protocol_describes_itself():
    assert list(PROTOCOLS)[: len(BUILTIN)] == BUILTIN
    for name in BUILTIN:
        definition = PROTOCOLS[name]
        assert isinstance(definition, JobProtocol) and definition.description and definition.reading


def test_a_protocol_of_another_package_runs_in_a_job(guest, tmp_path):
    protocols = {"single": {}, "loud": {"protocol": "shout", "options": {"mark": "?"}}}
    result = start(tmp_path / "job", job(protocols=protocols))
    found = [row for row in rows(tmp_path / "job") if row["protocol"] == "loud"]
    plain = [row for row in rows(tmp_path / "job") if row["protocol"] == "single"]
    assert [row["text"] for row in found] == [row["text"].upper() + "?" for row in plain]
    single, loud = result.summary["figures"]
    assert (loud["kind"], loud["primary"]) == ("shout", "loud")
    assert loud["figures"] == {"loud": single["figures"]["m1_t1"]}
    assert "one sample per problem, in capitals" in (tmp_path / "job" / "report.md").read_text()


def test_a_protocol_of_another_package_checks_its_options(guest):
    with pytest.raises(UserError, match="shout has the option mark alone"):
        job(protocols={"loud": {"protocol": "shout", "options": {"colour": 1}}})
    with pytest.raises(UserError, match="options are given, but the protocol is single: drop it"):
        job(protocols={"single": {"options": {"mark": "?"}}})


def test_options_of_another_package_are_part_of_a_shards_key(guest):
    from llmctl.jobs.plan import count_problems, plan_shards

    keys = set()
    for mark in ("?", "!"):
        recipe = job(protocols={"loud": {"protocol": "shout", "options": {"mark": mark}}})
        keys |= {shard.key for shard in plan_shards(recipe, count_problems(recipe), {})}
    assert len(keys) == 2 * 3


def test_empty_options_are_not_written():
    assert "options" not in recipe_content(job())["protocols"]["single"]


def test_bounds_cover_everything_once():
    assert even_bounds(10, 4) == [(0, 4), (4, 8), (8, 10)]
    assert even_bounds(0, 4) == []


def test_a_caption_names_each_number_of_problems():
    entries = [{"problems": 10, "samples": 30}, {"problems": 10, "samples": 30}]
    assert problems_caption("p", entries) == (
        "p: 95 % intervals over problems (10 problems, 30 samples per row)."
    )

"""Which model each stage of a run uses, and which samplers are open."""

import pytest

from llmctl.errors import UserError
from llmctl.rise import policies
from llmctl.rise.policies import Policy, Samplers, base_policy, trained_policy
from llmctl.rise.recipe import RiseRecipe
from llmctl.runs import Run
from llmctl.sampling.scripted import ScriptedSampler


def trained(folder, name, is_adapter):
    path = folder / "models" / name
    path.mkdir(parents=True)
    (path / "train_result.json").write_text("{}")
    if is_adapter:
        (path / "adapter_config.json").write_text("{}")
    return str(path)


@pytest.fixture
def run(tmp_path):
    with Run.open(tmp_path / "run", RiseRecipe(), "test") as found:
        yield found


def test_the_base_policy_has_the_recipes_adapter(tmp_path):
    assert base_policy(RiseRecipe(model="m")) == Policy("m")
    assert base_policy(RiseRecipe(model="m", adapter=tmp_path)) == Policy("m", str(tmp_path))


def test_an_iteration_gives_an_adapter_on_the_model_or_whole_weights(run):
    recipe = RiseRecipe(model="m", iterations=2)
    assert trained_policy(run, recipe, 0) == Policy("m")
    adapter, whole = trained(run.folder, "1", True), trained(run.folder, "2", False)
    assert trained_policy(run, recipe, 1) == Policy("m", adapter)
    assert trained_policy(run, recipe, 2) == Policy(whole)


def test_collection_starts_from_the_warm_start_where_there_is_one(run):
    recipe = RiseRecipe(model="m", warm_start={"problems": 4})
    with pytest.raises(UserError, match="warm is not trained yet: run `llmctl rise train`"):
        trained_policy(run, recipe, 0)
    assert trained_policy(run, recipe, 0 if trained(run.folder, "warm", True) else 1).adapter is not None


def test_one_policy_is_open_at_a_time(run, monkeypatch):
    opened, closed = [], []

    class Sampler(ScriptedSampler):
        def close(self):
            closed.append(self)

    def open_sampler(model, **_):
        opened.append(model)
        return Sampler(lambda *_: "a")

    monkeypatch.setattr(policies, "open_sampler", open_sampler)
    samplers = Samplers(run, RiseRecipe())
    first = samplers.policy(Policy("a"))
    assert samplers.policy(Policy("a")) is first and samplers.teacher() is None
    samplers.policy(Policy("b"))
    assert (opened, closed) == (["a", "b"], [first])
    samplers.close()
    samplers.close()
    assert len(closed) == 2

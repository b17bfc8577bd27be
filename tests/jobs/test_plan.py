from llmctl.jobs.plan import count_problems, plan_shards

from .helpers import job


def plan(recipe, weights=None):
    return plan_shards(recipe, count_problems(recipe), weights or {})


def test_shards_cover_every_problem_once():
    recipe = job(seeds=[0, 5])
    shards = plan(recipe)
    assert len(shards) == 3 * 2 * 3  # protocols, seeds, shards of 4, 4 and 2 problems
    for protocol in recipe.protocols:
        for seed in recipe.seeds:
            ranges = [(s.start, s.stop) for s in shards if (s.protocol, s.seed) == (protocol, seed)]
            assert ranges == [(0, 4), (4, 8), (8, 10)]
    assert len({shard.key for shard in shards}) == len(shards)


def test_keys_follow_what_results_depend_on_and_nothing_else():
    keys = [shard.key for shard in plan(job())]
    assert keys == [shard.key for shard in plan(job(workers={"cpus": 2, "retries": 0}))]
    assert keys != [shard.key for shard in plan(job(), {"base": "other weights"})]
    assert keys != [shard.key for shard in plan(job(sampling={"temperature": 0.5, "max_tokens": 6}))]
    other = job(tasks={"sort": {"options": {"min_length": 3, "max_length": 3}}})
    assert not set(keys) & {shard.key for shard in plan(other)}


def test_another_model_does_not_change_the_keys_of_the_first():
    two = job(models={"base": {"model": "m", "engine": "server"}, "b": {"model": "n", "engine": "server"}})
    assert {shard.key for shard in plan(job())} < {shard.key for shard in plan(two)}

"""Who computes which shard, with a pool that only notes what it is given."""

from collections import deque

from llmctl.jobs.plan import count_problems, plan_shards
from llmctl.jobs.pools.dispatch import Budget, Dispatcher
from llmctl.jobs.pools.pool import Lost
from llmctl.jobs.records import Done, Failed
from tests.jobs.helpers import job


class FakePool:
    """Workers take turns; `answer(worker, shard)` gives what comes of a shard, done where None."""

    def __init__(self, workers, answer=lambda worker, shard: None):
        self.workers, self.answer = workers, answer
        self.queues = [deque() for _ in range(workers)]
        self.given, self.longest, self.restarts = [], 0, 0

    def submit(self, worker, shard):
        self.queues[worker].append(shard)
        self.given.append((worker, shard))
        self.longest = max(self.longest, *map(len, self.queues))

    def wait(self):
        events = []
        for worker, queue in enumerate(self.queues):
            if queue:
                shard = queue.popleft()
                found = self.answer(worker, shard)
                if isinstance(found, Lost):
                    queue.clear()
                events.append((worker, found or Done(shard, b"", 1, 5, 0, 0.1, "fake")))
        return events

    def restart(self, worker):
        self.restarts += 1


def dispatch(pool, recipe, limit=None):
    shards = plan_shards(recipe, count_problems(recipe), {})
    dispatcher = Dispatcher(pool, recipe, shards, Budget(limit))
    return shards, list(dispatcher.outcomes()), dispatcher


def three_models(**changes):
    models = {name: {"model": name[0], "engine": "server"} for name in ("a", "a-tuned", "b")}
    return job(models=models, protocols=["single", "sequential"], **changes)


def test_every_shard_is_given_once_and_few_at_a_time():
    pool = FakePool(3)
    shards, outcomes, _ = dispatch(pool, three_models())
    assert sorted(o.shard.key for o in outcomes) == sorted(s.key for s in shards)
    assert len(pool.given) == len(shards) == 18
    assert pool.longest == 2


def test_a_worker_keeps_the_base_that_it_has_loaded():
    pool = FakePool(2)
    dispatch(pool, three_models())
    loads = {}
    for worker, shard in pool.given:
        loads.setdefault(worker, []).append(shard.model[0])
    switches = {w: sum(x != y for x, y in zip(b, b[1:], strict=False)) for w, b in loads.items()}
    assert {bases[0] for bases in loads.values()} == {"a", "b"}
    assert sum(switches.values()) <= 1  # the one that is done first helps the other


def test_a_failed_model_is_told_once_and_not_begun_again():
    pool = FakePool(1, lambda worker, shard: Failed(shard, "no") if shard.model == "b" else None)
    _, outcomes, dispatcher = dispatch(pool, three_models())
    assert [o.shard.model for o in outcomes if isinstance(o, Failed)] == ["b"]
    assert sum(isinstance(o, Done) for o in outcomes) == 12
    assert dispatcher.failed == {"b": "no"}
    assert sum(shard.model == "b" for _, shard in pool.given) <= 2  # what was in flight


def test_only_the_shard_that_was_worked_on_counts_as_lost():
    losses = []

    def answer(worker, shard):
        if shard.start == 4 and len(losses) < 2:
            losses.append(shard)
            return Lost("gone")
        return None

    pool = FakePool(1, answer)
    recipe = job(protocols=["single"], workers={"retries": 2})
    shards, outcomes, dispatcher = dispatch(pool, recipe)
    assert dispatcher.failed == {} and pool.restarts == 2
    assert sorted(o.shard.key for o in outcomes) == sorted(s.key for s in shards)


def test_what_is_in_flight_counts_against_the_budget():
    pool = FakePool(3)
    recipe = job(protocols=["single"])  # shards of at most 24, 24 and 12 tokens
    _, outcomes, dispatcher = dispatch(pool, recipe, limit=30)
    # 24 set aside, then 5 spent and 24 set aside, then 10 spent and 12 set aside
    assert len(outcomes) == 3 and pool.longest == 1
    assert dispatcher.budget.spent == 15 and not dispatcher.budget.is_used_up
    _, outcomes, dispatcher = dispatch(FakePool(1), recipe, limit=23)
    assert outcomes == [] and dispatcher.budget.is_used_up

"""The dispatcher: which worker computes which shard, and what happens to shards of lost workers."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence

from llmctl.jobs.plan import most_tokens
from llmctl.jobs.pools.pool import Lost, WorkerPool
from llmctl.jobs.prices import ShardPrices
from llmctl.jobs.records import Done, Failed, Outcome, Shard
from llmctl.jobs.spec import JobRecipe


class Budget:
    """What a job may spend: new tokens, and money. Shards in flight count with their maximum.

    Args:
        limit: Maximum number of new tokens; None is no limit.
        spent: New tokens of the shards that are already finished.
        max_cost: Maximum cost at the prices of the recipe; None is no limit.
        cost: Cost of the shards that are already finished.
    """

    def __init__(
        self,
        limit: int | None,
        spent: int = 0,
        max_cost: float | None = None,
        cost: float = 0.0,
    ) -> None:
        self.limit, self.spent = limit, spent
        self.max_cost, self.cost = max_cost, cost
        self.is_used_up = False  # a shard was not started because of a limit
        self._reserved: dict[str, tuple[int, float]] = {}

    def take(self, shard: Shard, most: int, most_cost: float = 0.0) -> bool:
        """Reserve `most` tokens and `most_cost` for a shard; False if that might pass a limit."""
        tokens = self.spent + sum(tokens for tokens, _ in self._reserved.values()) + most
        cost = self.cost + sum(cost for _, cost in self._reserved.values()) + most_cost
        if self.limit is not None and tokens > self.limit:
            return False
        if self.max_cost is not None and cost > self.max_cost:
            return False
        self._reserved[shard.key] = most, most_cost
        return True

    def settle(self, shard: Shard, tokens: int, cost: float = 0.0) -> None:
        """Replace the reservation of a shard by what it cost."""
        self._reserved.pop(shard.key, None)
        self.spent += tokens
        self.cost += cost


class Dispatcher:
    """Hands shards to a pool, a few per worker at a time. A worker keeps the base model that it has loaded.

    Args:
        pool: The workers.
        recipe: The job's recipe.
        shards: The shards that are not finished yet.
        budget: What may be spent.
        prepare: Completes a shard just before it is handed to a worker.
        prices: What shards cost; None where there are no prices.
    """

    def __init__(
        self,
        pool: WorkerPool,
        recipe: JobRecipe,
        shards: Sequence[Shard],
        budget: Budget,
        prepare: Callable[[Shard], Shard] = lambda shard: shard,
        prices: ShardPrices | None = None,
    ) -> None:
        self.pool, self.recipe, self.budget = pool, recipe, budget
        self._prepare, self._prices = prepare, prices
        self.failed: dict[str, str] = {}  # model -> why it was given up
        self._pending: dict[str, deque[Shard]] = {}  # base -> shards
        for shard in shards:
            self._pending.setdefault(self._base(shard), deque()).append(shard)
        self._in_flight: dict[int, deque[Shard]] = {worker: deque() for worker in range(pool.workers)}
        self._loaded: dict[int, str] = {}
        self._losses: Counter[str] = Counter()

    def outcomes(self) -> Iterator[Outcome]:
        """Yield outcomes as they arrive, until all shards are finished, given up, or beyond the budget.

        A model that fails yields one `Failed`, and none of its shards is started after that.
        """
        while True:
            for worker in self._in_flight:
                self._fill(worker)
            if not any(self._in_flight.values()):
                self.budget.is_used_up = any(self._pending.values())
                return
            for worker, event in self.pool.wait():
                if isinstance(event, Lost):
                    yield from self._lost(worker, event)
                else:
                    yield from self._came(worker, event)

    def _base(self, shard: Shard) -> str:
        return self.recipe.models[shard.model].base

    def _fill(self, worker: int) -> None:
        """Hand a worker as many shards as it may hold."""
        held = self._in_flight[worker]
        while len(held) < self.recipe.workers.in_flight:
            base = self._base_for(worker)
            if base is None:
                return
            shard = self._pending[base][0]
            most_cost = self._prices.most(shard) if self._prices else 0.0
            if not self.budget.take(shard, most_tokens(self.recipe, shard), most_cost):
                return
            self._pending[base].popleft()
            shard = self._prepare(shard)
            self._loaded[worker] = base
            held.append(shard)
            self.pool.submit(worker, shard)

    def _base_for(self, worker: int) -> str | None:
        """The base model that the worker has loaded while it has shards left, otherwise the one with most."""
        mine = self._loaded.get(worker)
        if mine is not None and self._pending.get(mine):
            return mine
        others = Counter(base for other, base in self._loaded.items() if other != worker)
        left = {base: len(queue) / (1 + others[base]) for base, queue in self._pending.items() if queue}
        return max(left, key=lambda base: left[base], default=None)

    def _came(self, worker: int, outcome: Outcome) -> Iterator[Outcome]:
        shard = self._in_flight[worker].popleft()
        if isinstance(outcome, Done):
            cost = (
                self._prices.cost(shard.model, outcome.prompt_tokens, outcome.tokens) if self._prices else 0.0
            )
            self.budget.settle(shard, outcome.tokens, cost)
            yield outcome
        else:
            self.budget.settle(shard, 0)
            yield from self._give_up(outcome)

    def _give_up(self, failure: Failed) -> Iterator[Outcome]:
        model = failure.shard.model
        if model in self.failed:
            return
        self.failed[model] = failure.reason
        for base, queue in self._pending.items():
            self._pending[base] = deque(shard for shard in queue if shard.model != model)
        yield failure

    def _lost(self, worker: int, loss: Lost) -> Iterator[Outcome]:
        """Queue the shards of a lost worker again; the oldest of them may have been the cause."""
        held = list(self._in_flight[worker])
        self._in_flight[worker].clear()
        self._loaded.pop(worker, None)
        for shard in held:
            self.budget.settle(shard, 0)
        if held:
            self._losses[held[0].key] += 1
        if held and (count := self._losses[held[0].key]) > self.recipe.workers.retries:
            reason = f"its worker was lost {count} times on shard {held[0]}: {loss.reason}"
            yield from self._give_up(Failed(held[0], reason))
        for shard in reversed(held):
            if shard.model not in self.failed:
                self._pending[self._base(shard)].appendleft(shard)
        self.pool.restart(worker)

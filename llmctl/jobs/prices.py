"""What shards cost at the prices of a job's recipe."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from llmctl.errors import UserError
from llmctl.jobs.plan import most_tokens, open_tasks, task_problems
from llmctl.jobs.records import Shard
from llmctl.jobs.spec import JobRecipe

_TEMPLATE_BYTES = 100  # what a chat template may add to one message


class ShardPrices:
    """The cost of shards: what they came to, and what they may come to at most.

    Args:
        recipe: The job's recipe, with a price for every model.

    Raises:
        UserError: A model has no price.
    """

    def __init__(self, recipe: JobRecipe) -> None:
        if missing := [name for name in recipe.models if name not in recipe.prices]:
            raise UserError(
                f"--max-cost needs the price of every model, but {missing[0]} has none: "
                f"--set prices.{missing[0]}.input=... and .output=..., per million tokens"
            )
        self._recipe = recipe
        self._bytes: dict[str, list[int]] = {}  # of each problem's conversation, by task

    def cost(self, model: str, prompt_tokens: int, new_tokens: int) -> float:
        """The cost of so many tokens of a model."""
        return self._recipe.prices[model].cost(prompt_tokens, new_tokens)

    def most(self, shard: Shard) -> float:
        """What a shard costs at most. No token is shorter than a byte, so prompts are bounded by their bytes.

        A protocol that samples no text loads its model itself, and costs nothing.
        """
        spec = self._recipe.protocols[shard.protocol]
        if not spec.definition.samples_text or shard.task not in self._recipe.tasks:
            return 0.0
        limit = self._recipe.sampling.max_tokens
        sizes = self._sizes(shard.task)[shard.start : shard.stop]
        read = sum(spec.definition.most_prompt_tokens(spec, size, limit) for size in sizes)
        return self.cost(shard.model, read, most_tokens(self._recipe, shard))

    def _sizes(self, name: str) -> list[int]:
        if name not in self._bytes:
            task = open_tasks(self._recipe)[name]
            self._bytes[name] = [
                _message_bytes(task.conversation(problem))
                for problem in task_problems(self._recipe, name, task)
            ]
        return self._bytes[name]


def spent_cost(recipe: JobRecipe, lines: Iterable[Mapping[str, Any]]) -> float:
    """The cost of a journal's lines; models without a price cost nothing."""
    return sum(
        recipe.prices[line["model"]].cost(line["prompt_tokens"], line["tokens"])
        for line in lines
        if line["model"] in recipe.prices
    )


def _message_bytes(messages: Iterable[Mapping[str, Any]]) -> int:
    return sum(
        len(json.dumps(message["content"], ensure_ascii=False, default=str).encode(errors="replace"))
        + _TEMPLATE_BYTES
        for message in messages
    )

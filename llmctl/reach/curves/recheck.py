"""Does a witness hold elsewhere: in another dtype, with an adapter merged, on another engine?

A witness is checked alone on the model that it was found with. Where its margin is thin, other arithmetic
may order the logits differently; a witness that holds in one place and not in another is fragile.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch

from llmctl.errors import UserError
from llmctl.reach.curves.epsilon import Pair
from llmctl.reach.problem import Problem, lay_out
from llmctl.reach.result import Result
from llmctl.reach.scoring.scorer import check_model, context_of, vocabulary_of
from llmctl.sampling.common import check_prompts
from llmctl.sampling.types import TokenSampler

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Recheck:
    """What became of one witness in one place."""

    id: str  # of the pair, as in a curve
    where: str  # "transformers bfloat16", "vllm float32"
    holds: bool  # greedy decoding still emits the target
    emitted_ids: tuple[int, ...]  # as many tokens as the target has; fewer where there is an error
    error: str = ""  # why decoding stopped (NaN logits), else empty

    def to_dict(self) -> dict[str, Any]:
        """A JSON object."""
        return asdict(self) | {"emitted_ids": list(self.emitted_ids)}


def recheck(
    results: Iterable[Result],
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    *,
    where: str | None = None,
) -> list[Recheck]:
    """Check witnesses on another model of transformers: greedy decoding of each alone, without a cache.

    Args:
        results: Of `solve`; those without a witness are left out.
        model: The weights in another dtype, with an adapter merged, ...; in evaluation mode.
        tokenizer: The tokenizer of that model; lays out older records that do not hold their prompt.
        where: What to call this place; None names the dtype.

    Returns:
        One for each result that has a witness, in order.

    Raises:
        UserError: The model is no decoder, a prompt does not fit it, or is not known.
    """
    check_model(model)
    place = where or f"transformers {_dtype(model.dtype)}"
    witnesses = [result for result in results if result.is_reached]
    prompts = [_prompt(result, tokenizer) for result in witnesses]
    for result, prompt in zip(witnesses, prompts, strict=True):
        try:
            check_prompts([prompt], len(result.target_ids), vocabulary_of(model), context_of(model))
        except UserError as error:
            raise UserError(f"the witness of {_name(result)} does not fit this model: {error}") from error
    found = []
    for result, prompt in zip(witnesses, prompts, strict=True):
        emitted, reason = _decode_alone(model, prompt, len(result.target_ids))
        found.append(_judged(result, place, emitted, reason))
    return found


def recheck_with_sampler(
    results: Iterable[Result],
    sampler: TokenSampler,
    tokenizer: PreTrainedTokenizerBase | None = None,
    *,
    where: str | None = None,
) -> list[Recheck]:
    """Check witnesses on another engine, from token ids, batched as that engine does.

    Args:
        results: As in `recheck`.
        sampler: A sampler of the same model; "vllm" or "transformers".
        tokenizer: Lays out older records that do not hold their prompt.
        where: What to call this place; None names engine, dtype and adapter.

    Returns:
        One for each result that has a witness, in order.

    Raises:
        UserError: The sampler takes no token ids, a prompt does not fit the model, or is not known.
        EngineError: The engine failed.
    """
    if not isinstance(sampler, TokenSampler):
        raise UserError(
            f"engine {sampler.info.engine} takes no token ids: recheck with engine vllm or transformers"
        )
    place = where or _place(sampler)
    witnesses = [result for result in results if result.is_reached]
    prompts = [_prompt(result, tokenizer) for result in witnesses]
    emitted: dict[int, list[int]] = {}
    for length in sorted({len(result.target_ids) for result in witnesses}):
        numbers = [i for i, result in enumerate(witnesses) if len(result.target_ids) == length]
        continued = sampler.continue_ids([prompts[i] for i in numbers], length)
        emitted |= dict(zip(numbers, continued, strict=True))
    return [_judged(result, place, emitted[i], "") for i, result in enumerate(witnesses)]


def fragile(rechecks: Iterable[Recheck]) -> tuple[str, ...]:
    """The ids of witnesses that do not hold everywhere, in order; each held where it was found."""
    return tuple(dict.fromkeys(entry.id for entry in rechecks if not entry.holds))


def _judged(result: Result, where: str, emitted: Sequence[int], error: str) -> Recheck:
    return Recheck(_name(result), where, tuple(emitted) == result.target_ids, tuple(emitted), error)


def _name(result: Result) -> str:
    return Pair.from_result(result.to_dict(with_path=False)).id


def _prompt(result: Result, tokenizer: PreTrainedTokenizerBase | None) -> list[int]:
    """The ids that the model read when the witness was checked."""
    if result.prompt_ids:
        return list(result.prompt_ids)
    if result.position not in ("before", "after") or tokenizer is None:
        raise UserError(
            f"the record {result.id or result.prompt_text!r:.60} does not hold the ids of its prompt (older "
            f"records do not), and position {result.position!r} cannot be laid out "
            f"{'without a tokenizer' if tokenizer is None else 'from its state'}: solve it again"
        )
    problem = Problem(
        result.state_ids,
        result.target_ids,
        position="before" if result.position == "before" else "after",
    )
    size = max((*result.state_ids, *result.target_ids)) + 1  # the model that runs it checks its own
    return lay_out(problem, tokenizer, vocabulary=size).prompt(result.control_ids)


@torch.inference_mode()
def _decode_alone(model: Any, prompt: list[int], count: int) -> tuple[list[int], str]:
    """The next `count` tokens, and why there are fewer."""
    ids = list(prompt)
    for _ in range(count):
        row = torch.tensor([ids], device=model.device)
        logits = model(input_ids=row, use_cache=False, logits_to_keep=1).logits[0, -1]
        if not torch.isfinite(logits).all():
            return ids[len(prompt) :], "the model gave NaN or infinite logits"
        ids.append(int(logits.argmax()))
    return ids[len(prompt) :], ""


def _place(sampler: TokenSampler) -> str:
    info = sampler.info
    dtype = info.details.get("dtype")
    parts = [info.engine, "" if dtype is None else _dtype(dtype)]
    parts.append("" if info.adapter is None else f"with {info.adapter}")
    return " ".join(part for part in parts if part)


def _dtype(dtype: Any) -> str:
    return str(dtype).removeprefix("torch.")

"""Read the replies of OpenAI-compatible servers, of which every field may be missing or wrong."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

from llmctl.errors import EngineError
from llmctl.sampling.types import Completion


class MalformedReply(EngineError):
    """A server answered, but not with what the protocol promises."""


@dataclass(frozen=True)
class Reply:
    """The usable part of one chat completion."""

    completions: tuple[Completion, ...]  # at least one: those before the first unusable choice
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int


def read_chat(data: Any, wanted: int) -> Reply:
    """The completions of a reply, in the order of their seeds, `wanted` at most.

    Args:
        data: The decoded JSON.
        wanted: Samples that were asked for.

    Raises:
        MalformedReply: Not even the first choice is usable.
    """
    choices = data.get("choices") if isinstance(data, dict) else None
    if not isinstance(choices, list) or not choices:
        raise MalformedReply("the reply has no choices")
    if all(isinstance(c, dict) and isinstance(c.get("index"), int) for c in choices):
        choices = sorted(choices, key=lambda c: c["index"])
    completions: list[Completion] = []
    for choice in choices[:wanted]:
        try:
            completions.append(_completion(choice))
        except MalformedReply:
            if not completions:
                raise
            break
    prompt, cached, new = _counts(data.get("usage"), completions)
    return Reply(tuple(_with_counts(completions, new)), prompt, cached, new)


def read_token_logprobs(data: Any) -> dict[str, float]:
    """Log-probabilities at the first position of the reply, by the server's name of the token.

    Raises:
        MalformedReply: The reply has none.
    """
    try:
        first = data["choices"][0]["logprobs"]["content"][0]
        entries = [*first["top_logprobs"], first]
        return {entry["token"]: float(entry["logprob"]) for entry in entries}
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise MalformedReply("the reply has no log-probabilities") from error


def _completion(choice: Any) -> Completion:
    message = choice.get("message") if isinstance(choice, dict) else None
    text = message.get("content") if isinstance(message, dict) else None
    reason = choice.get("finish_reason") if isinstance(choice, dict) else None
    refusal = message.get("refusal") if isinstance(message, dict) else None
    if reason == "content_filter" or (isinstance(refusal, str) and refusal and not text):
        why = refusal or "the server's content filter stopped the reply"
        return Completion("", finish_reason="refused", error=str(why))
    if not isinstance(text, str):
        raise MalformedReply("the reply has a choice without content")
    if reason not in ("stop", "length"):
        raise MalformedReply(f"the reply has finish_reason {reason!r} instead of 'stop' or 'length'")
    ids, scores = _token_ids(choice.get("token_ids")), choice.get("logprobs")
    return Completion(text, ids, _logprob(scores), reason, counted_tokens=None if ids else _scored(scores))


def _token_ids(value: Any) -> tuple[int, ...]:
    is_list = isinstance(value, list) and all(isinstance(i, int) for i in value)
    return tuple(value) if is_list else ()


def _scored(logprobs: Any) -> int | None:
    """Number of tokens with a log-probability; None where the server gives none."""
    content = logprobs.get("content") if isinstance(logprobs, dict) else None
    return len(content) or None if isinstance(content, list) else None


def _with_counts(completions: list[Completion], total: int) -> list[Completion]:
    """Give completions without a count their share of the server's total, by the length of their texts."""
    unknown = [i for i, c in enumerate(completions) if c.tokens == 0 and not c.is_error]
    left = total - sum(completion.tokens for completion in completions)
    weights = [len(completions[i].text) + 1 for i in unknown]
    for place, i in enumerate(unknown):
        share = max(0, left) * weights[place] // sum(weights[place:])
        left -= share
        completions[i] = replace(completions[i], counted_tokens=share)
    return completions


def _logprob(value: Any) -> float:
    """The sum over the tokens; NaN where the server gives none, since 0 would claim certainty."""
    content = value.get("content") if isinstance(value, dict) else None
    try:
        return sum(float(entry["logprob"]) for entry in content) if content else math.nan
    except (KeyError, TypeError, ValueError):
        return math.nan


def _counts(usage: Any, completions: list[Completion]) -> tuple[int, int, int]:
    usage = usage if isinstance(usage, dict) else {}
    details = usage.get("prompt_tokens_details")
    cached = details.get("cached_tokens") if isinstance(details, dict) else 0
    known = [completion.tokens for completion in completions if not completion.is_error]
    # The server's own count where one completion tells none: that is what it charges for.
    new = sum(known) if all(known) and known else _count(usage.get("completion_tokens"))
    return _count(usage.get("prompt_tokens")), _count(cached), new or sum(known)


def _count(value: Any) -> int:
    return value if isinstance(value, int) else 0

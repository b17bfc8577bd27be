"""Attempts, and the conversation that asks for the next one.

State at turn t: the problem, earlier attempts, and what was said after each (RISE, section 3). One
function builds it for collection, training and evaluation, so that the prompts a model is judged on are
those it was trained on.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from llmctl.messages import Message
from llmctl.sampling import Completion
from llmctl.tasks import Problem, Task
from llmctl.tasks.base import INCORRECT

_MANY_TIMES = 30  # one word this often, and making up half of the text, is no attempt
_LONG_WORD = 400  # characters without a space


@dataclass(frozen=True)
class Attempt:
    """One response to a problem, judged."""

    text: str
    reward: float
    is_correct: bool
    answer: str | None  # the vote
    message: str  # what is said next
    tokens: int
    logprob: float | None  # natural log, summed over the response's tokens; None where the engine can't tell
    is_repeat: bool = False  # says what an earlier attempt of the episode said
    is_degenerate: bool = False
    error: str | None = None  # the engine failed: there is no response

    def to_dict(self) -> dict[str, Any]:
        """Plain values for a journal; flags only where they are set."""
        plain = asdict(self)
        plain["logprob"] = None if self.logprob is None else round(self.logprob, 4)
        for flag in ("is_repeat", "is_degenerate", "error"):
            if not plain[flag]:
                del plain[flag]
        return plain


def judge(task: Task, problem: Problem, reply: Completion, earlier: Sequence[Attempt] = ()) -> Attempt:
    """Check a response against the task, and against the earlier attempts of the episode."""
    if reply.is_error:
        return Attempt("", -1.0, False, None, "", 0, 0.0, error=reply.error)
    feedback = task.check(problem, reply.text)
    said = _squeeze(reply.text)
    return Attempt(
        text=reply.text,
        reward=feedback.reward,
        is_correct=feedback.is_correct,
        answer=feedback.answer,
        # where no oracle tells, a right answer is followed by what follows a wrong one (RISE, section 5)
        message=INCORRECT if feedback.is_correct else feedback.message,
        tokens=len(reply.token_ids),
        logprob=reply.logprob if math.isfinite(reply.logprob) else None,
        is_repeat=any(_squeeze(attempt.text) == said for attempt in earlier),
        is_degenerate=is_degenerate(reply.text),
    )


def next_conversation(
    task: Task,
    problem: Problem,
    attempts: Sequence[Attempt],
    window: int | None = None,
    retry: str | None = None,
) -> list[Message]:
    """The messages that ask for the next attempt.

    Args:
        task: Poses the problem.
        problem: The problem.
        attempts: All attempts so far; none for the first turn.
        window: How many of the last attempts stay in the prompt; None keeps all.
        retry: Said after every attempt in place of its feedback.
    """
    messages = list(task.conversation(problem))
    for attempt in attempts if window is None else attempts[-window:]:
        said = attempt.message if retry is None else retry
        messages.append({"role": "assistant", "content": attempt.text})
        messages.append({"role": "user", "content": f"{said}\n{problem.prompt}"})
    return messages


def is_degenerate(text: str) -> bool:
    """Whether a response is one word over and over, or holds an absurdly long word."""
    words = text.split()
    if any(len(word) > _LONG_WORD for word in words):
        return True
    _, count = Counter(words).most_common(1)[0] if words else ("", 0)
    return count >= _MANY_TIMES and count * 2 >= len(words)


def _squeeze(text: str) -> str:
    return " ".join(text.split())

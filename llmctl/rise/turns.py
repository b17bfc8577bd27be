"""Turns, and the conversation that asks for the next one.

The state at turn t is the problem, the earlier responses, and the message after each (RISE, section 3). One
function builds it for collection, training and evaluation, so that a model is evaluated on the prompts that
it was trained on.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from llmctl.messages import Message
from llmctl.rise.records import Turn
from llmctl.sampling import Completion
from llmctl.tasks import Problem, Task
from llmctl.tasks.base import INCORRECT

_MANY_TIMES = 30  # a word that occurs this often and makes up half of the text: the response is degenerate
_LONG_WORD = 400  # characters without a space


def judge(task: Task, problem: Problem, reply: Completion, earlier: Sequence[Turn] = ()) -> Turn:
    """Check a response with the task, and compare it with the earlier turns of the episode."""
    if reply.is_error:
        return Turn("", -1.0, False, None, "", 0, 0.0, error=reply.error, status=reply.status)
    feedback = task.check(problem, reply.text)
    text = _one_spaced(reply.text)
    return Turn(
        text=reply.text,
        reward=feedback.reward,
        is_correct=feedback.is_correct,
        answer=feedback.answer,
        # Without an oracle, a right answer is followed by the same message as a wrong one (RISE, section 5).
        message=INCORRECT if feedback.is_correct else feedback.message,
        tokens=reply.tokens,
        logprob=reply.logprob if math.isfinite(reply.logprob) else None,
        is_repeat=any(_one_spaced(attempt.text) == text for attempt in earlier),
        is_degenerate=is_degenerate(reply.text),
        status=reply.status,
    )


def next_conversation(
    task: Task,
    problem: Problem,
    attempts: Sequence[Turn],
    window: int | None = None,
    retry: str | Sequence[str] | None = None,
) -> list[Message]:
    """The messages that ask for the next turn.

    Args:
        task: Poses the problem.
        problem: The problem.
        attempts: All turns so far; none for the first turn.
        window: Number of the last turns that stay in the prompt; None keeps all.
        retry: Message after every turn, in place of its feedback; of a list, turn t has number t modulo its
            length, whatever the window shows.
    """
    messages = list(task.conversation(problem))
    first = 0 if window is None else max(0, len(attempts) - window)
    for number, attempt in enumerate(attempts[first:], first):
        messages.append({"role": "assistant", "content": attempt.text})
        messages.append({"role": "user", "content": f"{_message(attempt, retry, number)}\n{problem.prompt}"})
    return messages


def _message(attempt: Turn, retry: str | Sequence[str] | None, number: int) -> str:
    """The message after turn `number`, from 0."""
    if retry is None:
        return attempt.message
    return retry if isinstance(retry, str) else retry[number % len(retry)]


def is_degenerate(text: str) -> bool:
    """Whether a response is one word over and over, or holds an absurdly long word."""
    words = text.split()
    if any(len(word) > _LONG_WORD for word in words):
        return True
    _, count = Counter(words).most_common(1)[0] if words else ("", 0)
    return count >= _MANY_TIMES and count * 2 >= len(words)


def _one_spaced(text: str) -> str:
    return " ".join(text.split())

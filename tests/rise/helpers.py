"""A task, a policy and records without any model, for the tests of RISE."""

from __future__ import annotations

import random

from llmctl.rise.recipe import CollectSettings
from llmctl.rise.records import Evaluation, Turn
from llmctl.rise.rollout import Player
from llmctl.sampling.scripted import ScriptedSampler
from llmctl.sampling.settings import SamplingSettings
from llmctl.tasks import Feedback, Problem


class Letters:
    """Problem number i asks for the letter of i; "?" cannot be read."""

    name = "letters"

    def __iter__(self):
        return self.problems()

    def problems(self, split="train", limit=None, seed=0):
        for number in range(26 if limit is None else limit):
            letter = chr(ord("a") + number % 26)
            yield Problem(f"{split}:{number}", f"letter {number}", letter, f"it is {letter}")

    def conversation(self, problem):
        return [{"role": "system", "content": "letters"}, {"role": "user", "content": problem.prompt}]

    def check(self, problem, text):
        answer = text.split()[-1] if text.split() else "?"
        if answer == "?":
            return Feedback(-1.0, False, "No answer could be read.")
        is_right = answer == problem.answer
        return Feedback(float(is_right), is_right, "Right." if is_right else "Wrong.", answer)


TASK = Letters()


def problems(count=4):
    return list(TASK.problems(limit=count))


def player(script, **sampling):
    return Player(ScriptedSampler(script), TASK, SamplingSettings(**{"temperature": 1.0, **sampling}))


def number_of(conversation):
    """Which problem a conversation is about."""
    return int(conversation[-1]["content"].split()[-1])


def turn_of(conversation):
    """Which attempt a conversation asks for, from 1; only without a window."""
    return sum(message["role"] == "assistant" for message in conversation) + 1


def right(conversation):
    return chr(ord("a") + number_of(conversation) % 26)


def gambler(chance):
    """A policy that is right with that chance, and otherwise says one of a few wrong things."""

    def script(conversation, seed):
        draw = random.Random(seed)
        if draw.random() < chance:
            return f"{right(conversation)}"
        return draw.choice(["?", "1", "2", f"{draw.random()} 3"])

    return script


def attempt(answer="x", is_correct=False, **more):
    fields = {"text": f"{answer}", "reward": float(is_correct), "is_correct": is_correct, "answer": answer}
    return Turn(**(fields | {"message": "Wrong.", "tokens": 1, "logprob": -1.0} | more))


def collecting(**changes):
    return CollectSettings(**({"turns": 3, "samples": 2, "improve": ("self",)} | changes))


def record(parallel, turns, problem="p"):
    """An evaluation record from strings of letters.

    "R" is right, "W" wrong, "V" wrong in another way, "?" unreadable, "E" an engine failure.
    """

    def one(letter):
        answers = {"R": "right", "W": "wrong", "V": "other", "?": None}
        error = "gone" if letter == "E" else None
        return attempt(answers.get(letter), letter == "R", text=letter, error=error)

    return Evaluation(problem, "right", tuple(map(one, parallel)), tuple(map(one, turns)))

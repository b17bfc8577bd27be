"""Pairs of question and answer for one control: read, split, and checked against the model. No torch."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from llmctl.errors import UserError
from llmctl.reach.problem import Layout, Problem, lay_out
from llmctl.reach.universal.recipe import SLOT, ControlSettings, PairSettings

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class TextPair(NamedTuple):
    """A prompt and the text that should follow it."""

    question: str
    answer: str
    place: str = ""  # where it comes from, for messages


Pairs = Sequence[tuple[str, str]] | Sequence[TextPair]


@dataclass(frozen=True)
class PairData:
    """The two sets of pairs; no question is in both."""

    train: tuple[TextPair, ...]
    held_out: tuple[TextPair, ...]
    repeats: int = 0  # rows that were left out because their question had come before

    def fingerprint(self) -> str:
        """A hash of all pairs in their order."""
        text = "\0".join(f"{p.question}\0{p.answer}" for p in (*self.train, *self.held_out))
        return hashlib.sha256(f"{len(self.train)}\0{text}".encode(errors="replace")).hexdigest()[:16]


def read_pairs(data: PairSettings) -> PairData:
    """Read and split the pairs of a recipe.

    Raises:
        UserError: Nothing is there, a row lacks a field (with file and line), there are fewer pairs than
            needed, or a held-out question is a training question too.
    """
    drawn = _Drawn()
    if data.task is not None:
        train = drawn.take(_from_task(data, data.train_split, data.train), data.train, "data.train")
        held_out = _apart(data, train, _from_task(data, data.held_out_split, data.held_out))
        return PairData(train, held_out, drawn.repeats)
    source = _from_file(data) if data.path is not None else _inline(data)
    if data.held_out_path is None:
        both = drawn.take(source, data.train + data.held_out, "data.train and data.held_out")
        return PairData(both[: data.train], both[data.train :], drawn.repeats)
    train = drawn.take(source, data.train, "data.train")
    return PairData(train, _apart(data, train, _from_file(data, held_out=True)), drawn.repeats)


class _Drawn:
    """Takes pairs of which no two have the same question."""

    def __init__(self) -> None:
        self.repeats = 0

    def take(self, source: Iterable[TextPair], count: int, name: str) -> tuple[TextPair, ...]:
        found: dict[str, TextPair] = {}
        if count == 0:
            return ()
        for pair in source:
            if pair.question in found:
                self.repeats += 1
                continue
            found[pair.question] = pair
            if len(found) == count:
                return tuple(found.values())
        if not found:
            raise UserError("the data hold no pairs, but at least one is needed: check data")
        raise UserError(
            f"{name} need {count} pairs, but the data hold {len(found)} with different questions: "
            "ask for fewer, or give more data"
        )


def _apart(data: PairSettings, train: Sequence[TextPair], source: Iterable[TextPair]) -> tuple[TextPair, ...]:
    held_out = _Drawn().take(source, data.held_out, "data.held_out")
    check_disjoint(train, held_out)
    return held_out


def check_disjoint(train: Iterable[TextPair], held_out: Iterable[TextPair]) -> None:
    """Refuse held-out questions that are training questions.

    Raises:
        UserError: Names the first and counts them.
    """
    seen = {pair.question for pair in train}
    both = [pair for pair in held_out if pair.question in seen]
    if both:
        where = f" ({both[0].place})" if both[0].place else ""
        raise UserError(
            f"{len(both)} held-out questions are training questions too, the first is "
            f"{both[0].question!r:.60}{where}: remove them from one of the sets"
        )


def _from_file(data: PairSettings, *, held_out: bool = False) -> Iterator[TextPair]:
    from llmctl.tasks.rows import FileSource

    path = data.held_out_path if held_out else data.path
    split = data.held_out_split if held_out else data.train_split
    for row in FileSource(str(path)).rows(split, data.split_seed):
        yield _shaped(data, row.text(data.question), row.text(data.answer), row.place)


def _inline(data: PairSettings) -> list[TextPair]:
    pairs = [_shaped(data, q, a, f"data.pairs.{i}") for i, (q, a) in enumerate(data.pairs or ())]
    if data.split_seed:
        random.Random(data.split_seed).shuffle(pairs)
    return pairs


def _from_task(data: PairSettings, split: str, count: int) -> Iterator[TextPair]:
    from llmctl.tasks import get_task

    options = dict(data.options)
    task = get_task(str(data.task), options.pop("path", None), **options)
    # Half as many again, so that a few repeated questions do not leave too few.
    for problem in task.problems(split, count + count // 2 + 8, data.split_seed):
        place = f"{data.task}, {split} problem {problem.id}"
        answer = problem.solution if data.answer == "solution" else problem.answer
        if answer is None:
            raise UserError(f"{place} has no reference solution: set data.answer to answer")
        yield _shaped(data, problem.prompt, answer, place)


def _shaped(data: PairSettings, question: str, answer: str, place: str) -> TextPair:
    for name, text in (("question", question), ("answer", answer)):
        if not text.strip():
            raise UserError(
                f"{place}: the {name} is {text!r}, which has no tokens: give a text that is not empty"
            )
    return TextPair(data.prompt.replace(SLOT, question), data.reply.replace("{answer}", answer), place)


def to_problem(pair: TextPair, control: ControlSettings) -> Problem:
    """A pair as a reachability problem."""
    state: str | list[dict[str, str]] = pair.question
    if control.template is not None:
        state = [
            {
                name: text.replace(SLOT, pair.question) if name == "content" else text
                for name, text in m.items()
            }
            for m in control.template
        ]
    return Problem(
        state=state,
        target=pair.answer,
        position=control.position,
        forbidden=control.forbidden,
        controls=control.tokens,
        dictionary=control.words(),
        candidates=control.allowed,
        must_roundtrip=control.must_roundtrip,
    )


def lay_out_pairs(
    pairs: Sequence[TextPair],
    control: ControlSettings,
    tokenizer: PreTrainedTokenizerBase,
    vocabulary: int,
    context_length: int | None,
) -> list[Layout]:
    """Every pair as token ids.

    Raises:
        UserError: A question or an answer has no tokens, or the pair does not fit the context; names its
            place.
    """
    from llmctl.reach.vocabulary import survive

    layouts = []
    # What a control may hold does not matter here, so no dictionary is read.
    plain = control.model_copy(update={"tokens": "any", "dictionary": None})
    for number, pair in enumerate(pairs):
        place = pair.place or f"pair {number}"
        try:
            if not pair.answer:
                raise UserError("the answer is '', which has no tokens: give a text that is not empty")
            problem = to_problem(pair, plain)
            layout = lay_out(
                problem, tokenizer, vocabulary=vocabulary, context_length=context_length, max_k=control.k
            )
        except UserError as error:
            raise UserError(f"{place}: {error}") from error
        if control.must_roundtrip and not survive([layout.prompt(())], tokenizer)[0]:
            raise UserError(
                f"{place}: must_roundtrip is on, but the prompt itself changes when it is decoded and "
                "encoded again: change the prompt, or set control.must_roundtrip=false"
            )
        layouts.append(layout)
    return layouts

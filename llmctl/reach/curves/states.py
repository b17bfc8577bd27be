"""The pairs of a curve: states from a file or a text, and targets for each of them.

Everything is drawn once, by seed, before the first search: the plan of a curve. Two curves with the same
plan can be compared pair by pair.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmctl.errors import UserError
from llmctl.reach.curves.passage import PASSAGE
from llmctl.reach.curves.recipe import StateSettings, TargetSettings
from llmctl.runs.files import disk_errors_as_user_errors

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Ids = tuple[int, ...]


@dataclass(frozen=True)
class SourceState:
    """A state, and what really follows it."""

    number: int  # its place in the file, or of the excerpt; the same for any choice of states
    ids: Ids
    next_ids: Ids  # empty where it is not known


@dataclass(frozen=True)
class PlannedState:
    """A state with its targets; `pair_ids` name the pairs."""

    number: int
    ids: Ids
    targets: tuple[Ids, ...]

    @property
    def pair_ids(self) -> tuple[str, ...]:
        """One for each target: number of the state, place of the target."""
        return tuple(f"{self.number}/{place}" for place in range(len(self.targets)))


def read_states(settings: StateSettings, tokenizer: PreTrainedTokenizerBase) -> list[SourceState]:
    """The states of a recipe, in their order in the file.

    Raises:
        UserError: No such file, a line that is no state (named by its number), a text too short, or fewer
            states than the recipe needs.
    """
    if settings.path is None:
        found = list(_excerpts(PASSAGE, settings, tokenizer))
    elif settings.path.suffix == ".txt":
        found = list(_excerpts(_read(settings.path), settings, tokenizer))
    else:
        found = list(_lines(settings.path, settings, tokenizer))
    source = settings.path or "the passage that comes with llmctl"
    if not found:
        raise UserError(f"{source} holds no states: give a JSONL file of states, or a longer text")
    if len(found) < settings.count:
        raise UserError(
            f"states.count is {settings.count}, but {source} gives {len(found)}: lower it, or set it to 0 "
            "for all of them"
        )
    chosen = range(len(found))
    if settings.count:
        chosen = sorted(random.Random(settings.seed).sample(chosen, settings.count))  # type: ignore[assignment]
    return [found[place] for place in chosen]


def _read(path: Path) -> str:
    if not path.is_file():
        raise UserError(f"states.path is {path}, but there is no such file: give a JSONL or a text file")
    with disk_errors_as_user_errors(f"read {path}"):
        try:
            return path.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise UserError(f"{path} is not UTF-8 text: save it as UTF-8") from error


def _excerpts(
    text: str, settings: StateSettings, tokenizer: PreTrainedTokenizerBase
) -> Iterator[SourceState]:
    """Cut a text into excerpts of the wanted lengths, one after the other, each with what follows it."""
    if not settings.lengths or min(settings.lengths) < 1:
        raise UserError(
            f"states.lengths is {list(settings.lengths)}, but it needs lengths of at least 1 token"
        )
    # verbose=False: the text is longer than the context, and is not read whole.
    ids = tuple(tokenizer.encode(text, add_special_tokens=False, verbose=False))
    start = number = 0
    while start + (length := settings.lengths[number % len(settings.lengths)]) < len(ids):
        stop = start + length
        yield SourceState(number, ids[start:stop], ids[stop : stop + max(settings.lengths)])
        start, number = stop, number + 1


def _lines(path: Path, settings: StateSettings, tokenizer: PreTrainedTokenizerBase) -> Iterator[SourceState]:
    for number, line in enumerate(_read(path).splitlines(), 1):
        if not line.strip():
            continue
        row = parse_line(line, f"{path}, line {number}")
        state, following = row.get(settings.state_key), row.get(settings.next_key, "")
        if not isinstance(state, str) or not state:
            raise UserError(
                f"{path}, line {number}: {settings.state_key!r} is {state!r:.40}, but a text is needed that "
                "is not empty: set states.state_key to the key that holds the state"
            )
        if not isinstance(following, str):
            raise UserError(f"{path}, line {number}: {settings.next_key!r} is {following!r:.40}, no text")
        yield SourceState(
            number,
            tuple(tokenizer.encode(state, add_special_tokens=False)),
            tuple(tokenizer.encode(following, add_special_tokens=False)) if following else (),
        )


def parse_line(line: str, where: str) -> dict[str, Any]:
    """One line of a JSONL file that must hold an object.

    Raises:
        UserError: It does not.
    """
    try:
        row = json.loads(line)
    except ValueError as error:
        raise UserError(f"{where}: broken JSON ({error})") from error
    if not isinstance(row, dict):
        raise UserError(f"{where}: a JSON object is needed, not a {type(row).__name__}")
    return row


def draw_targets(
    state: SourceState, settings: TargetSettings, vocabulary: int, order: Sequence[int] | None
) -> tuple[Ids, ...]:
    """The targets of one state.

    Args:
        state: Whose.
        settings: Which kind, and how many.
        vocabulary: Tokens to draw from.
        order: All tokens by falling probability after the state alone; needed for "top" and "ranks".

    Raises:
        UserError: The true next token is not known, or there are fewer tokens than targets.
    """
    if settings.draw == "next":
        if len(state.next_ids) < settings.tokens:
            raise UserError(
                f"state {state.number} is followed by {len(state.next_ids)} tokens, but targets.tokens is "
                f"{settings.tokens}: set states.next_key to the key of what follows, or targets.draw=top"
            )
        return (state.next_ids[: settings.tokens],)
    if settings.count > vocabulary:
        raise UserError(
            f"targets.count is {settings.count}, but the vocabulary has {vocabulary} tokens: lower it"
        )
    generator = random.Random(f"{settings.seed}/{state.number}")
    if settings.draw == "vocabulary":
        return tuple((token,) for token in generator.sample(range(vocabulary), settings.count))
    if order is None:
        raise ValueError(f'draw "{settings.draw}" needs the order of the tokens')
    if settings.draw == "top":
        return tuple((token,) for token in order[: settings.count])
    return tuple((order[rank],) for rank in _bands(len(order), settings.count, generator))


def _bands(size: int, count: int, generator: random.Random) -> Iterable[int]:
    """A random place in each of `count` equal bands of range(size)."""
    edges = [size * band // count for band in range(count + 1)]
    return [generator.randrange(low, high) for low, high in zip(edges, edges[1:], strict=False)]


def read_plan(path: Path, tokenizer: PreTrainedTokenizerBase, count: int) -> list[PlannedState]:
    """States and targets of another curve's pairs.jsonl, the first `count` states (0: all).

    The pairs are taken over by text where this tokenizer differs: every target must then be one that this
    tokenizer can write.

    Raises:
        UserError: There is no such file, or a line is no pair.
    """
    rows = []
    for number, line in enumerate(_read(path).splitlines(), 1):
        row = parse_line(line, f"{path}, line {number}")
        if missing := [key for key in ("id", "state_ids", "target_ids", "state_text") if key not in row]:
            raise UserError(f"{path}, line {number} has no {missing[0]!r}: give pairs.jsonl of a curve's run")
        rows.append(row)
    states: dict[int, list[dict[str, Any]]] = {}
    for row in rows:
        states.setdefault(int(str(row["id"]).partition("/")[0]), []).append(row)
    chosen = list(states.items())[: count or None]
    if not chosen:
        raise UserError(f"{path} holds no pairs: give pairs.jsonl of a finished curve")
    return [
        PlannedState(
            number,
            _ids(group[0]["state_ids"], group[0]["state_text"], tokenizer),
            tuple(_ids(row["target_ids"], row["target_text"], tokenizer) for row in group),
        )
        for number, group in chosen
    ]


def _ids(ids: Sequence[int], text: str, tokenizer: PreTrainedTokenizerBase) -> Ids:
    """The ids where they mean the same text to this tokenizer, else the text encoded anew."""
    known = max(ids) < len(tokenizer) and tokenizer.decode(
        list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False
    )
    if known == text:
        return tuple(ids)
    encoded = tuple(tokenizer.encode(text, add_special_tokens=False))
    if not encoded:
        raise UserError(f"the text {text!r:.40} has no tokens in this model's tokenizer")
    return encoded

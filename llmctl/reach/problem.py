"""A reachability problem, and how its tokens are laid out: left, control, right, target."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from llmctl.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Position = Literal["before", "after", "system", "user_start", "user_end", "reply_start", "template"]
POSITIONS = ("before", "after", "system", "user_start", "user_end", "reply_start", "template")
SLOT = "{control}"  # where the control goes in a conversation with position "template"
# Private-use characters: no template or tokenizer gives them a meaning, and strip() leaves them alone.
_MARK = "\ue000\ue001\ue000"


@dataclass(frozen=True)
class Problem:
    """Find a control that makes the model emit `target` after `state`.

    Texts are encoded by the model's own tokenizer without special tokens; ids are taken as they are.
    """

    state: str | Sequence[int] | Sequence[Mapping[str, Any]]
    """Text, ids, or (position "template") a conversation with `{control}` once in it."""
    target: str | Sequence[int] = ""
    """Text or ids, one token or several; note the leading space (" Paris")."""
    position: Position = "before"
    """"before" or "after" the state's tokens; or in the chat template, with the state as the user's
    message: "system" (the whole system message), "user_start", "user_end" (around the state),
    "reply_start" (the first words of the reply); or "template"."""
    forbidden: Sequence[int | str] = ()
    """Tokens that no control may hold: ids, or texts whose every token is forbidden."""
    controls: Literal["any", "printable", "words"] = "any"
    """"any" token of the vocabulary, those that decode to printable text, or whole dictionary words."""
    dictionary: Collection[str] | None = None
    """Lower-case words for controls "words"."""
    candidates: Sequence[int] | None = None
    """The only tokens that a control may hold; None is the whole vocabulary."""
    must_roundtrip: bool = False
    """Only controls whose prompt, decoded and encoded again, gives the same ids."""
    id: str = ""

    def __post_init__(self) -> None:
        if self.position not in POSITIONS:
            raise UserError(f"position is {self.position!r}, but it must be one of {', '.join(POSITIONS)}")
        if self.controls not in ("any", "printable", "words"):
            raise UserError(f"controls is {self.controls!r}, but it must be any, printable or words")
        if len(self.state) == 0:
            raise UserError("the state is empty, but it needs at least one token: give a text or token ids")


@dataclass(frozen=True)
class Layout:
    """A problem as token ids: the model reads left + control + right and should emit target."""

    left_ids: tuple[int, ...]
    right_ids: tuple[int, ...]
    target_ids: tuple[int, ...]
    state_ids: tuple[int, ...]  # the state alone, without template or beginning-of-sequence token
    position: str = "before"

    def prompt(self, control_ids: Sequence[int]) -> list[int]:
        """The ids that the model reads."""
        return [*self.left_ids, *control_ids, *self.right_ids]

    def length(self, k: int) -> int:
        """Tokens of a prompt with a control of k tokens and its target."""
        return len(self.left_ids) + k + len(self.right_ids) + len(self.target_ids)


def lay_out(
    problem: Problem,
    tokenizer: PreTrainedTokenizerBase,
    *,
    vocabulary: int | None = None,
    context_length: int | None = None,
    max_k: int = 0,
) -> Layout:
    """Encode a problem for one tokenizer.

    A beginning-of-sequence token comes first where the tokenizer itself puts one.

    Args:
        problem: The problem.
        tokenizer: The tokenizer of the model.
        vocabulary: Size of the model's vocabulary; ids outside it are refused.
        context_length: Tokens that the model can read; None does not check.
        max_k: The longest control that will be tried.

    Raises:
        UserError: State or target is empty or outside the vocabulary, the position does not fit the
            state, there is no chat template, or the prompt is longer than the context.
    """
    size = vocabulary if vocabulary is not None else len(tokenizer)
    target = _encode(problem.target, "target", tokenizer, size) if len(problem.target) else ()
    if problem.position in ("before", "after"):
        state = _encode(problem.state, "state", tokenizer, size)
        start = _bos(tokenizer)
        left, right = (start, state) if problem.position == "before" else (start + state, ())
    else:
        left, right, state = _chat_layout(problem, tokenizer)
    layout = Layout(left, right, target, state, problem.position)
    if context_length is not None and layout.length(max_k) > context_length:
        raise UserError(
            f"state, target and {max_k} control tokens are {layout.length(max_k)} tokens, but the model's "
            f"context is {context_length}: shorten the state or lower k"
        )
    return layout


def _encode(value: Any, name: str, tokenizer: PreTrainedTokenizerBase, vocabulary: int) -> tuple[int, ...]:
    if isinstance(value, str):
        ids = tuple(tokenizer.encode(value, add_special_tokens=False))
        if not ids:
            raise UserError(f"the {name} is {value!r}, which has no tokens: give a text that is not empty")
        return ids
    if not all(isinstance(token, int) and not isinstance(token, bool) for token in value):
        raise UserError(f"the {name} is {value!r:.60}, but a text or a list of token ids is needed")
    if (outside := next((token for token in value if not 0 <= token < vocabulary), None)) is not None:
        raise UserError(
            f"the {name} holds token {outside}, but the vocabulary is 0 to {vocabulary - 1}: "
            "give ids of this model's tokenizer"
        )
    return tuple(value)


def _bos(tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    """The beginning-of-sequence token, where this tokenizer puts one before any text."""
    with_special = tokenizer.encode("a", add_special_tokens=True)
    bos = tokenizer.bos_token_id
    return (bos,) if bos is not None and with_special[:1] == [bos] else ()


def _chat_layout(
    problem: Problem, tokenizer: PreTrainedTokenizerBase
) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """Render the conversation with a mark where the control goes, and encode both sides of it."""
    text = _render(_conversation(problem), tokenizer, problem.position)
    if problem.position == "reply_start":
        text += _MARK
    parts = text.split(_MARK)
    if len(parts) != 2:
        raise UserError(
            f"the chat template shows position {problem.position!r} {len(parts) - 1} times, but it is "
            "needed once: use another position"
        )
    left, right = (tuple(tokenizer.encode(part, add_special_tokens=False)) for part in parts)
    is_text = isinstance(problem.state, str)
    state = tuple(tokenizer.encode(problem.state, add_special_tokens=False)) if is_text else ()
    return left, right, state


def _conversation(problem: Problem) -> list[dict[str, Any]]:
    state = problem.state
    if problem.position == "template":
        if isinstance(state, str) or not all(isinstance(message, Mapping) for message in state):
            raise UserError(f"position 'template' needs a conversation as the state, with {SLOT} once in it")
        messages = [dict(message) for message in state if isinstance(message, Mapping)]
        count = sum(str(message.get("content", "")).count(SLOT) for message in messages)
        if count != 1:
            raise UserError(f"the conversation holds {SLOT} {count} times, but it is needed exactly once")
        return [m | {"content": str(m.get("content", "")).replace(SLOT, _MARK)} for m in messages]
    if not isinstance(state, str):
        raise UserError(
            f"position {problem.position!r} puts the state into the chat template, so it must be text: "
            "give a text, or use before or after"
        )
    if problem.position == "system":
        return [{"role": "system", "content": _MARK}, {"role": "user", "content": state}]
    around = {"user_start": _MARK + state, "user_end": state + _MARK, "reply_start": state}
    return [{"role": "user", "content": around[problem.position]}]


def _render(messages: list[dict[str, Any]], tokenizer: PreTrainedTokenizerBase, position: str) -> str:
    from jinja2 import TemplateError

    if not tokenizer.chat_template:
        raise UserError(
            f"position {position!r} needs a chat template, but this tokenizer has none: use before or after"
        )
    try:
        return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))
    except TemplateError as error:
        raise UserError(f"the chat template refuses position {position!r} ({error}): use another") from error

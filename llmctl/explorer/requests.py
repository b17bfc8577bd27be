"""What the page may ask for: every request is checked here before anything is done about it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from llmctl.errors import UserError
from llmctl.explorer.limits import Limits
from llmctl.trust import parse_json

Slot = Literal["before", "after", "system", "user_start", "user_end", "reply_start"]
Method = Literal["default", "published", "greedy", "gcg", "beam", "random"]
Token = int
TEXTS = ("state", "problem", "system", "text")  # fields of requests that hold text
O = TypeVar("O", bound="PageRequest")  # noqa: E741


class PageRequest(BaseModel):
    """A request; unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ModelRequest(PageRequest):
    """Something asked of a model."""

    model: str = Field(min_length=1, max_length=1000)
    adapter: str | None = Field(default=None, max_length=1000)


class StateRequest(ModelRequest):
    """Something asked of a model at a state."""

    state: str = Field(min_length=1)
    position: Slot = "before"


class NextTokensRequest(StateRequest):
    """The next-token distribution, with a control or without."""

    control: tuple[Token, ...] = ()
    top: int = Field(default=20, ge=1, le=200)


class CompletionRequest(ModelRequest):
    """Tokens of the vocabulary that fit what has been typed."""

    text: str
    most: int = Field(default=12, ge=1, le=50)


class WitnessRequest(StateRequest):
    """A control asked again."""

    target: tuple[Token, ...] = Field(min_length=1)
    control: tuple[Token, ...]


class BoundRequest(StateRequest):
    """The self-attention bound of each head."""

    relative: float = Field(default=1.0, gt=0, le=1000)


class SearchRequest(StateRequest):
    """A search for controls, for one target after the other."""

    targets: tuple[tuple[Token, ...], ...] = Field(min_length=1)
    k: int = Field(default=4, ge=1)
    method: Method = "default"
    controls: Literal["any", "printable"] = "any"
    must_roundtrip: bool = False
    budget: int = Field(default=4000, ge=1)
    """Controls scored for each target at most."""
    seed: int = Field(default=0, ge=0, le=2**31)


class SetRequest(StateRequest):
    """The reachable set of a state."""

    k: int = Field(default=1, ge=1)
    controls: Literal["any", "printable"] = "any"
    sample: int = Field(default=2048, ge=0)
    """Tokens that a control may hold, drawn from the vocabulary; 0 is all of them."""
    forwards: int = Field(default=1024, ge=0)
    """Controls scored beyond one token."""
    seed: int = Field(default=0, ge=0, le=2**31)


class ChatRequest(ModelRequest):
    """A problem of one's own, for the tuned model and its base."""

    problem: str = Field(min_length=1)
    answer: str = Field(default="", max_length=200)
    system: str = ""
    turns: int = Field(default=3, ge=1)
    new_tokens: int = Field(default=128, ge=1)
    temperature: float = Field(default=0.0, ge=0, le=5)
    seed: int = Field(default=0, ge=0, le=2**31)


def read_request(cls: type[O], content: bytes | Mapping[str, Any], limits: Limits) -> O:
    """Read a request, and hold it to the limits.

    Raises:
        UserError: It is no JSON object, a field is missing, unknown or wrong, or it asks for too much.
    """
    if isinstance(content, bytes):
        try:
            content = parse_json(content)
        except ValueError as error:
            raise UserError("the request is not JSON") from error
    try:
        request = cls.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "the request"
        raise UserError(f"{place}: {first['msg']}") from error
    _hold(request, limits)
    return request


def _hold(request: PageRequest, limits: Limits) -> None:
    for name, most in (
        ("k", limits.k),
        ("budget", limits.budget),
        ("forwards", limits.budget),
        ("turns", limits.turns),
        ("new_tokens", limits.new_tokens),
    ):
        value = getattr(request, name, None)
        if value is not None and value > most:
            raise UserError(f"{name} is {value:,}, but this explorer allows {most:,} at most: lower it")
    for name in TEXTS:
        text = getattr(request, name, "")
        if len(text) > limits.characters:
            raise UserError(
                f"the {name} has {len(text):,} characters, but this explorer allows {limits.characters:,} at "
                "most: shorten it"
            )
    control = getattr(request, "control", ())
    if len(control) > limits.k:
        raise UserError(f"the control has {len(control)} tokens, but this explorer allows {limits.k} at most")
    targets = [*getattr(request, "targets", ()), getattr(request, "target", ())]
    if len(targets) - 1 > limits.targets:
        raise UserError(
            f"{len(targets) - 1} targets are given, but this explorer allows {limits.targets} at most"
        )
    if any(len(target) > 32 for target in targets):
        raise UserError("a target has more than 32 tokens: shorten it")
    if any(len(target) == 0 for target in targets[:-1]):
        raise UserError("a target is empty, but it needs at least one token")

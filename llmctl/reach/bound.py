"""How far k control tokens can push one attention head, on real weights and a state's representations.

Source: arXiv 2310.04444, the theorem on self-attention control. A head's output at a state position is
y = lambda * y0 + c with 0 < lambda <= 1, y0 its output without control, and c the control's part. With
attention weights exp(l), |l| <= a for every control token, and value norms at most v_max,

    |c| <= v_max * k * exp(a) / (g + k * exp(a)),      g = sum_j exp(l_j) over the state,

which is tighter than the paper's k * exp(a) * v_max / g. So a desired output whose component orthogonal
to y0 is longer than that cannot be had with k tokens. This is a statement about one head on given state
representations, not about the model: deeper heads see representations that the control has changed too.

Rotary embeddings keep norms, so they do not matter. The norm in front of a layer bounds what any control
token's representation can be: its gain is folded into the weights, and what is left has norm sqrt(D).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor

from llmctl.errors import UserError
from llmctl.reach.attention_hook import LayerAttention, attention_of
from llmctl.reach.problem import Problem, lay_out
from llmctl.reach.projections import norm_gain, projection, spectral_norm
from llmctl.reach.scoring.models import check_model, context_of, vocabulary_of

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

STATEMENT = (
    "A bound on one attention head on the state's own representations, not on the model: a least k of 1 "
    "means that the bound rules nothing out, and never that one token suffices."
)


@dataclass(frozen=True)
class HeadBound:
    """The bound of one head at the last state token."""

    layer: int
    head: int
    log_g: float  # log of the sum of exp(logit) over the state's tokens
    max_logit: float  # a: no control token's attention logit is larger in absolute value
    max_value: float  # v_max: no control token's value is longer
    output_norm: float  # |y0|, the head's output without control
    desired: float  # norm of the desired component orthogonal to y0
    least_k: int | None  # the least k that the bound does not rule out; None: no k suffices
    log_paper_bound: float  # log of the paper's bound at k = 1, with its looser constants

    def limit(self, k: int) -> float:
        """The longest component orthogonal to y0 that k control tokens could give."""
        if k <= 0:
            return 0.0
        weight = math.log(k) + self.max_logit  # log of k * exp(a)
        return self.max_value / (1.0 + math.exp(min(self.log_g - weight, 700.0)))


@dataclass(frozen=True)
class BoundReport:
    """The bounds of every head of a model for one state."""

    heads: tuple[HeadBound, ...]
    state_ids: tuple[int, ...]
    relative: float
    statement: str = STATEMENT

    def to_dict(self) -> dict[str, Any]:
        """A JSON object."""
        return asdict(self) | {
            "heads": [asdict(head) for head in self.heads],
            "state_ids": list(self.state_ids),
        }


def attention_bound(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    problem: Problem,
    *,
    relative: float = 1.0,
    between: Callable[[], None] = lambda: None,
) -> BoundReport:
    """For each layer and head, the least k that the bound does not rule out.

    Args:
        model: A decoder-only model of transformers with a norm in front of each attention.
        tokenizer: The tokenizer of that model.
        problem: Its state (with template, where the position is a slot); the target is not read.
        relative: The desired component orthogonal to the head's output, as a multiple of that output's
            norm; 1 turns the output by 45 degrees or more.
        between: Called before each layer, where others may use the model; what it raises ends the work.

    Raises:
        UserError: The problem does not fit the model, `relative` is not positive, or the model's
            attention is not one that this bound covers.
    """
    if not relative > 0:
        raise UserError(f"relative is {relative}, but it must be above 0")
    check_model(model)
    layout = lay_out(problem, tokenizer, vocabulary=vocabulary_of(model), context_length=context_of(model))
    layers = attention_of(model, layout.prompt(()))
    heads = []
    for layer in layers:
        between()
        weights = {name: projection(layer.module, name) for name in "qkv"}  # the slow part, so once per layer
        heads += [_head_bound(layer, head, weights, relative) for head in range(len(layer.queries))]
    return BoundReport(tuple(heads), layout.state_ids, relative)


def control_limits(
    layer: LayerAttention, head: int, weights: dict[str, tuple[Tensor, Tensor]] | None = None
) -> tuple[float, float]:
    """What no control token can exceed in one head: norm of its key, norm of its value.

    Args:
        layer: The layer.
        head: A query head.
        weights: The layer's projections by name, where they are at hand.
    """
    gain, offset = norm_gain(layer.norm)
    limits = []
    for name in ("k", "v"):
        norm = getattr(layer.module, f"{name}_norm", None)
        if norm is not None:
            scale, shift = norm_gain(norm)
            limits.append(math.sqrt(len(scale)) * float(scale.abs().max()) + float(shift.norm()))
            continue
        weight, bias = weights[name] if weights else projection(layer.module, name)
        part = _rows_of_head(layer, head // layer.groups)
        bias = bias[part] + weight[part] @ offset
        limits.append(spectral_norm(weight[part] * gain) * math.sqrt(len(gain)) + float(bias.norm()))
    return limits[0], limits[1]


def _rows_of_head(layer: LayerAttention, place: int) -> slice:
    width = layer.values.shape[-1]
    return slice(place * width, (place + 1) * width)


def _head_bound(
    layer: LayerAttention, head: int, weights: dict[str, tuple[Tensor, Tensor]], relative: float
) -> HeadBound:
    key_limit, value_limit = control_limits(layer, head, weights)
    logits = layer.logits[head]
    output = logits.softmax(0) @ layer.values[head]
    raw = float(layer.queries[head].norm()) * key_limit * layer.scaling
    max_logit = _capped(raw, layer.softcap)
    log_g = float(logits.logsumexp(0))
    desired = relative * float(output.norm())
    return HeadBound(
        layer=layer.layer,
        head=head,
        log_g=log_g,
        max_logit=max_logit,
        max_value=value_limit,
        output_norm=float(output.norm()),
        desired=desired,
        least_k=least_k(desired, value_limit, max_logit, log_g),
        log_paper_bound=_paper_logit(layer, head, weights["q"], key_limit) + math.log(value_limit) - log_g,
    )


def least_k(desired: float, max_value: float, max_logit: float, log_g: float) -> int | None:
    """The least k with desired <= max_value * k e^a / (g + k e^a), or None where no k satisfies it."""
    share = desired / max_value
    if share >= 1:
        return None
    if share <= 0:
        return 0
    log_k = math.log(share) - math.log1p(-share) + log_g - max_logit
    return max(math.ceil(math.exp(log_k) * (1 - 1e-12)), 1) if log_k < 40 else None


def _paper_logit(layer: LayerAttention, head: int, query: tuple[Tensor, Tensor], key_limit: float) -> float:
    """The paper's a, which bounds the query by its largest singular value times the state's norms."""
    part = _rows_of_head(layer, head)
    weight, bias = query[0][part], query[1][part]
    longest = spectral_norm(weight) * float(layer.inputs.norm(dim=1).max()) + float(bias.norm())
    norm = getattr(layer.module, "q_norm", None)
    if norm is not None:
        scale, shift = norm_gain(norm)
        longest = math.sqrt(len(scale)) * float(scale.abs().max()) + float(shift.norm())
    return longest * key_limit * layer.scaling


def _capped(logit: float, softcap: float | None) -> float:
    return softcap * math.tanh(logit / softcap) if softcap else logit

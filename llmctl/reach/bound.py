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
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from llmctl.errors import UserError
from llmctl.reach.problem import Problem, lay_out
from llmctl.reach.scoring.scorer import check_model, context_of, vocabulary_of

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

STATEMENT = (
    "A bound on one attention head on the state's own representations, not on the model: a least k of 1 "
    "means that the bound rules nothing out, and never that one token suffices."
)
_TAP = "llmctl_tap"


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
    taps = tap_state(model, layout.prompt(()))
    heads = []
    for tap in taps:
        between()
        weights = {name: projection(tap.module, name) for name in "qkv"}  # the slow part, so once per layer
        heads += [_head_bound(tap, head, weights, relative) for head in range(len(tap.queries))]
    return BoundReport(tuple(heads), layout.state_ids, relative)


@dataclass(frozen=True)
class LayerTap:
    """One layer's attention at the last token of a prompt, in float32."""

    layer: int
    module: Any  # the attention module
    norm: nn.Module  # the norm in front of it
    inputs: Tensor  # (T, D) what the projections read
    queries: Tensor  # (H, E) at the last token, with position embedding; E is the key width
    logits: Tensor  # (H, T) scaled, capped and masked
    values: Tensor  # (H, T, E)
    scaling: float
    softcap: float | None
    groups: int  # query heads that share one key and value head


def tap_state(model: Any, prompt: Sequence[int]) -> list[LayerTap]:
    """What every attention layer computes at the last token of a prompt.

    Raises:
        UserError: The attention cannot be tapped, or has no norm in front.
    """
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    seen: dict[int, dict[str, Any]] = {}
    with _tapped(base, seen), torch.inference_mode():
        base(input_ids=torch.tensor([list(prompt)], device=base.device), use_cache=False)
    if not seen:
        raise UserError(
            f"the attention of {type(base).__name__} does not go through transformers' attention interface, "
            "so the bound cannot be computed: use a model whose attention does (Llama, Qwen, Gemma, GPT-2)"
        )
    return [_layer_tap(layer, seen[layer], base) for layer in sorted(seen)]


def control_limits(
    tap: LayerTap, head: int, weights: dict[str, tuple[Tensor, Tensor]] | None = None
) -> tuple[float, float]:
    """What no control token can exceed in one head: norm of its key, norm of its value.

    Args:
        tap: The layer.
        head: A query head.
        weights: The layer's projections by name, where they are at hand.
    """
    gain, offset = _norm_gain(tap.norm)
    limits = []
    for name in ("k", "v"):
        norm = getattr(tap.module, f"{name}_norm", None)
        if norm is not None:
            scale, shift = _norm_gain(norm)
            limits.append(math.sqrt(len(scale)) * float(scale.abs().max()) + float(shift.norm()))
            continue
        weight, bias = weights[name] if weights else projection(tap.module, name)
        part = _rows_of_head(tap, head // tap.groups)
        bias = bias[part] + weight[part] @ offset
        limits.append(_spectral_norm(weight[part] * gain) * math.sqrt(len(gain)) + float(bias.norm()))
    return limits[0], limits[1]


def _rows_of_head(tap: LayerTap, place: int) -> slice:
    width = tap.values.shape[-1]
    return slice(place * width, (place + 1) * width)


def _spectral_norm(weight: Tensor) -> float:
    """The largest singular value of a wide matrix, through its small Gram matrix."""
    wide = weight.double()
    return math.sqrt(max(float(torch.linalg.eigvalsh(wide @ wide.T)[-1]), 0.0))


def projection(module: Any, name: str) -> tuple[Tensor, Tensor]:
    """Weight (out, D) and bias (out,) of the "q", "k" or "v" projection, adapters included.

    They are read off the module's answers to the unit vectors, so that LoRA, quantized and transposed
    weights are all taken as the model uses them.
    """
    fused = getattr(module, "c_attn", None)
    linear = fused if fused is not None else getattr(module, f"{name}_proj", None)
    if linear is None:
        raise UserError(
            f"{type(module).__name__} has no {name}_proj, so the bound cannot be computed: use a model "
            "with separate projections (Llama, Mistral, Qwen, Gemma) or GPT-2"
        )
    parameter = next(linear.parameters())
    width = linear.nx if fused is not None else linear.in_features
    dtype = parameter.dtype if parameter.dtype.is_floating_point else torch.float32
    with torch.inference_mode():
        bias = linear(torch.zeros(1, width, dtype=dtype, device=parameter.device)).float()
        weight = linear(torch.eye(width, dtype=dtype, device=parameter.device)).float() - bias
    weight, bias = weight.T.clone(), bias[0].clone()
    if fused is None:
        return weight, bias
    part = slice(*(index * len(bias) // 3 for index in ("qkv".index(name), "qkv".index(name) + 1)))
    return weight[part], bias[part]


def _head_bound(
    tap: LayerTap, head: int, weights: dict[str, tuple[Tensor, Tensor]], relative: float
) -> HeadBound:
    key_limit, value_limit = control_limits(tap, head, weights)
    logits = tap.logits[head]
    output = logits.softmax(0) @ tap.values[head]
    raw = float(tap.queries[head].norm()) * key_limit * tap.scaling
    max_logit = _capped(raw, tap.softcap)
    log_g = float(logits.logsumexp(0))
    desired = relative * float(output.norm())
    return HeadBound(
        layer=tap.layer,
        head=head,
        log_g=log_g,
        max_logit=max_logit,
        max_value=value_limit,
        output_norm=float(output.norm()),
        desired=desired,
        least_k=least_k(desired, value_limit, max_logit, log_g),
        log_paper_bound=_paper_logit(tap, head, weights["q"], key_limit) + math.log(value_limit) - log_g,
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


def _paper_logit(tap: LayerTap, head: int, query: tuple[Tensor, Tensor], key_limit: float) -> float:
    """The paper's a, which bounds the query by its largest singular value times the state's norms."""
    part = _rows_of_head(tap, head)
    weight, bias = query[0][part], query[1][part]
    longest = _spectral_norm(weight) * float(tap.inputs.norm(dim=1).max()) + float(bias.norm())
    norm = getattr(tap.module, "q_norm", None)
    if norm is not None:
        scale, shift = _norm_gain(norm)
        longest = math.sqrt(len(scale)) * float(scale.abs().max()) + float(shift.norm())
    return longest * key_limit * tap.scaling


def _capped(logit: float, softcap: float | None) -> float:
    return softcap * math.tanh(logit / softcap) if softcap else logit


def _norm_gain(norm: nn.Module) -> tuple[Tensor, Tensor]:
    """Gain and offset of a norm: its output is gain * z + offset with |z| at most sqrt(D)."""
    if isinstance(norm, nn.LayerNorm):
        gain = norm.weight.detach().float()
        offset = norm.bias.detach().float() if norm.bias is not None else torch.zeros_like(gain)
        return gain, offset
    weight = next(norm.parameters())
    with torch.inference_mode():  # an RMS norm leaves a vector of ones as it is, times its gain
        gain = norm(torch.ones(1, len(weight), dtype=weight.dtype, device=weight.device))[0].float()
    return gain.clone(), torch.zeros_like(gain)


def _layer_tap(layer: int, seen: dict[str, Any], model: Any) -> LayerTap:
    module = seen["module"]
    query, key, value = (seen[name][0].float() for name in ("query", "key", "value"))  # (H or G, T, E)
    groups = query.shape[0] // key.shape[0]
    key, value = key.repeat_interleave(groups, 0), value.repeat_interleave(groups, 0)
    logits = (query[:, -1:] @ key.transpose(1, 2))[:, 0] * seen["scaling"]
    if seen["softcap"]:
        logits = seen["softcap"] * torch.tanh(logits / seen["softcap"])
    if seen["mask"] is not None:
        logits = logits + seen["mask"][0, 0, -1, : logits.shape[1]].float()
    return LayerTap(
        layer=layer,
        module=module,
        norm=_norm_before(model, module),
        inputs=seen["inputs"].float(),
        queries=query[:, -1],
        logits=logits,
        values=value,
        scaling=seen["scaling"],
        softcap=seen["softcap"],
        groups=groups,
    )


def _norm_before(model: Any, module: nn.Module) -> nn.Module:
    """The norm whose output the attention reads."""
    for parent in model.modules():
        if any(child is module for child in parent.children()):
            for name in ("input_layernorm", "ln_1"):
                if isinstance(norm := getattr(parent, name, None), nn.Module):
                    return norm
    raise UserError(
        f"{type(module).__name__} has no norm in front, so a control token's representation has no bound: "
        "use a model with pre-normalization (Llama, Mistral, Qwen, Gemma, GPT-2)"
    )


@contextmanager
def _tapped(model: Any, seen: dict[int, dict[str, Any]]) -> Iterator[None]:
    """Record queries, keys, values and inputs of every attention layer while the block runs."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.integrations.sdpa_attention import sdpa_attention_forward
    from transformers.masking_utils import eager_mask

    def tap(module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Any, **options: Any) -> Any:
        if options.get("s_aux") is not None:
            raise UserError("this model's attention has learned sinks, which the bound does not cover")
        scaling = options.get("scaling")
        seen[module.layer_idx] = {
            "module": module,
            "query": query.detach(),
            "key": key.detach(),
            "value": value.detach(),
            "mask": mask,
            "scaling": float(scaling if scaling is not None else query.shape[-1] ** -0.5),
            "softcap": options.get("softcap"),
            "inputs": inputs.pop(id(module)),
        }
        return eager(module, query, key, value, mask, **options)

    def eager(module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Any, **options: Any) -> Any:
        softcap = options.pop("softcap", None)
        if not softcap:
            return sdpa_attention_forward(module, query, key, value, mask, **options)
        groups = query.shape[1] // key.shape[1]
        key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
        logits = query @ key.transpose(2, 3) * options["scaling"]
        logits = softcap * torch.tanh(logits / softcap) + mask
        return (logits.softmax(-1) @ value).transpose(1, 2), None

    inputs: dict[int, Tensor] = {}

    def remember(module: nn.Module, args: Any, kwargs: Any) -> None:
        hidden = kwargs.get("hidden_states", args[0] if args else None)
        if isinstance(hidden, Tensor):
            inputs[id(module)] = hidden[0].detach()

    before = model.config._attn_implementation
    AttentionInterface.register(_TAP, tap)
    AttentionMaskInterface.register(_TAP, eager_mask)
    attentions = [m for m in model.modules() if hasattr(m, "layer_idx") and hasattr(m, "config")]
    hooks = [m.register_forward_pre_hook(remember, with_kwargs=True) for m in attentions]
    model.set_attn_implementation(_TAP)
    try:
        yield
    finally:
        model.set_attn_implementation(before)
        for hook in hooks:
            hook.remove()

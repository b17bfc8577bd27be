"""What is answered at once: the next token, completion over the vocabulary, a witness, the bound."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from llmctl.errors import UserError
from llmctl.explorer.models import Models, Open
from llmctl.explorer.requests import (
    BoundRequest,
    CompletionRequest,
    NextTokensRequest,
    StateRequest,
    WitnessRequest,
)
from llmctl.reach.problem import Layout, Problem, lay_out


def layout_of(found: Open, request: StateRequest, target: tuple[int, ...] = ()) -> Layout:
    """A state of the page as token ids of its model.

    Raises:
        UserError: It does not fit the model.
    """
    from llmctl.reach.scoring.scorer import context_of, vocabulary_of

    return lay_out(
        Problem(request.state, target=target, position=request.position),
        found.tokenizer,
        vocabulary=vocabulary_of(found.model),
        context_length=context_of(found.model),
    )


def next_tokens(models: Models, request: NextTokensRequest) -> dict[str, Any]:
    """The next-token distribution after control and state.

    Returns:
        `tokens` (id, text, probability, falling), `rest` (probability of all others), `entropy` in nats,
        `state`, `left`, `control` and `right` as tokens with texts.
    """
    import torch

    from llmctl.reach.scoring.scorer import Scorer

    found = models.get(request.model, request.adapter)
    layout = layout_of(found, request)
    scorer = Scorer(found.model, layout)
    control = check_ids(found, request.control, "control")
    _, logits = next(iter(scorer.next_logits(torch.tensor([control], dtype=torch.long).view(1, -1))))
    logprobs = logits[0].float().log_softmax(-1)
    top = logprobs.topk(min(request.top, len(logprobs)))
    shares = top.values.exp().tolist()
    entropy = float(-(logprobs.exp() * logprobs).nan_to_num().sum())
    return {
        "tokens": [
            {**token, "p": share}
            for token, share in zip(found.tokens(top.indices.tolist()), shares, strict=True)
        ],
        "rest": max(0.0, 1.0 - sum(shares)),
        "entropy": entropy,
        "left": found.tokens(layout.left_ids),
        "control": found.tokens(control),
        "right": found.tokens(layout.right_ids),
        "state_tokens": len(layout.state_ids),
        "vocabulary": len(found.texts),
    }


def check_ids(found: Open, ids: tuple[int, ...], name: str) -> tuple[int, ...]:
    """Token ids that the page named.

    Raises:
        UserError: One is outside the vocabulary.
    """
    from llmctl.reach.scoring.scorer import vocabulary_of

    size = vocabulary_of(found.model)
    if (outside := next((token for token in ids if not 0 <= token < size), None)) is not None:
        raise UserError(f"the {name} holds token {outside}, but the vocabulary is 0 to {size - 1}")
    return ids


def complete(models: Models, request: CompletionRequest) -> dict[str, Any]:
    """Tokens that fit what has been typed, and how the text itself is encoded.

    Tokens that are the text come first, with and without a space before it, then those that begin with
    it, then those that hold it, the shorter first.
    """
    found = models.get(request.model, request.adapter)
    typed = request.text
    whole = tuple(found.tokenizer.encode(typed, add_special_tokens=False)) if typed else ()
    bare = typed.strip().lower()
    ranked = []
    for token, text in enumerate(found.texts):
        if bare and bare not in text.lower():
            continue
        plain = text.strip().lower()
        rank = (text != typed, plain != bare, not plain.startswith(bare), len(text), token)
        ranked.append((rank, token))
    ranked.sort()
    return {
        "tokens": found.tokens([token for _, token in ranked[: request.most]]),
        "matches": len(ranked),
        "whole": found.tokens(whole[:32]) if whole else [],
    }


def witness(models: Models, request: WitnessRequest) -> dict[str, Any]:
    """A control asked again: whether the target is emitted, its loss and rank, and what each token does."""
    found = models.get(request.model, request.adapter)
    target = check_ids(found, request.target, "target")
    control = check_ids(found, request.control, "control")
    layout = layout_of(found, request, target)
    return {**ControlScorer(found, layout).measure(control), "target": found.tokens(target)}


class ControlScorer:
    """Looks closely at controls of one problem, with a meter of its own."""

    def __init__(self, found: Open, layout: Layout) -> None:
        from llmctl.reach.scoring.scorer import Scorer

        self._found, self._layout = found, layout
        self._scorer = Scorer(found.model, layout)
        self.base_rank, scores = self._scorer.base()
        self.base_loss = _number(scores.loss[0])

    def measure(self, control: tuple[int, ...], *, decide: bool = True) -> dict[str, Any]:
        """Loss and rank with a control, and the rise of the loss when each of its tokens is left out.

        Args:
            control: Token ids.
            decide: Decode greedily as well, to see what is emitted.
        """
        import torch

        row = torch.tensor([control], dtype=torch.long).view(1, -1)
        loss = _number(self._scorer.score(row).loss[0])
        _, logits = next(iter(self._scorer.next_logits(row)))
        first = logits[0].float()
        top = int(first.argmax())
        entry = {
            "control": self._found.tokens(control),
            "loss": loss,
            "rank": int((first > first[self._layout.target_ids[0]]).sum()),
            "base_loss": self.base_loss,
            "base_rank": self.base_rank,
            "emits": {"id": top, "text": self._found.text(top)},
            "effects": self._effects(control, loss),
        }
        if decide:
            entry["is_hit"] = self._scorer.emits(self._layout.prompt(control))
        return entry

    def _effects(self, control: tuple[int, ...], loss: float | None) -> list[float | None]:
        """What the loss rises by without each token, in nats: positive where the token helps."""
        import torch

        k = len(control)
        if k == 0 or loss is None:
            return []
        rows = torch.tensor([control[:i] + control[i + 1 :] for i in range(k)], dtype=torch.long).view(k, -1)
        found = (_number(value) for value in self._scorer.score(rows).loss)
        return [None if value is None else value - loss for value in found]


def bound(models: Models, request: BoundRequest, between: Callable[[], None]) -> dict[str, Any]:
    """The self-attention bound of every head at the state's last token.

    Beside the report's own fields each head has `reach`: the longest component orthogonal to its output
    that one control token could give, as a multiple of the output's norm. `between` is called before each
    layer, where others may use the model.
    """
    from llmctl.reach.bound import attention_bound

    found = models.get(request.model, request.adapter)
    layout = layout_of(found, request)
    problem = Problem(request.state, position=request.position)
    report = attention_bound(
        found.model, found.tokenizer, problem, relative=request.relative, between=between
    )
    entry = report.to_dict()
    for head, bounds in zip(entry["heads"], report.heads, strict=True):
        head["reach"] = bounds.limit(1) / bounds.output_norm if bounds.output_norm > 0 else None
    return {**entry, "state": found.tokens(layout.state_ids)}


def _number(value: Any) -> float | None:
    number = float(value)
    return number if math.isfinite(number) else None

"""One control for a whole data set: the gradient and the candidates of a minibatch, judged on all pairs.

Source: universal prompts by greedy coordinate gradient, Zou et al., arXiv 2307.15043, algorithm 2.
Departures: a step takes a minibatch of the pairs; its best few candidates are judged on the whole training
set before one is kept, so that a lucky minibatch cannot win; the control grows from one token to k, each
length from the best of the one before; half of the candidates are taken in the gradient's order.
The loss of a pair is the mean cross-entropy over its answer's tokens, and every pair counts alike.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from llmctl.errors import UserError
from llmctl.reach.problem import Layout
from llmctl.reach.scoring.pairs import PairBatch
from llmctl.reach.scoring.scorer import BLANK, Meter, check_model, context_of, vocabulary_of
from llmctl.reach.universal import candidates as proposals
from llmctl.reach.universal.data import Pairs, TextPair, lay_out_pairs, to_problem
from llmctl.reach.universal.recipe import OptimizeSettings
from llmctl.reach.universal.result import UniversalStep
from llmctl.reach.vocabulary import allowed_tokens, survive
from llmctl.sampling.common import derive_seed

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# With must_roundtrip, this many times the candidates are proposed, since many do not survive.
_SURPLUS = 4


@dataclass(frozen=True)
class _Judged:
    """A candidate that was judged on all judging pairs."""

    ids: tuple[int, ...]
    loss: float
    matches: int
    batch_loss: float  # on the minibatch


class Universal:
    """A search over training pairs; a step depends on the step before it and on nothing else.

    So a search that was killed goes on from its last recorded step as if it had not been.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: PreTrainedTokenizerBase,
        pairs: Pairs,
        settings: OptimizeSettings,
    ) -> None:
        """Encode the pairs and choose the tokens that a control may hold.

        Raises:
            UserError: See `optimize`.
        """
        check_model(model)
        if not pairs:
            raise UserError("there are no training pairs, but at least one is needed: give pairs")
        self.model, self.tokenizer, self.settings = model, tokenizer, settings
        self.layouts = self.lay_out(pairs)
        problem = to_problem(TextPair(*pairs[0]), settings.control)
        vocabulary = min(vocabulary_of(model), len(tokenizer))
        self.tokens = torch.tensor(allowed_tokens(problem, tokenizer, vocabulary))  # (M,) ascending
        self._extends_right = not any(layout.right_ids for layout in self.layouts)
        judge = settings.search.judge
        # Training pairs come in the order they were drawn in, so the first are as good as any.
        self.judges = self.layouts if judge is None else self.layouts[:judge]

    def lay_out(self, pairs: Pairs) -> list[Layout]:
        """Pairs as token ids of this model."""
        texts = [TextPair(*pair) for pair in pairs]
        size, context = vocabulary_of(self.model), context_of(self.model)
        return lay_out_pairs(texts, self.settings.control, self.tokenizer, size, context)

    def steps(
        self,
        method: str | None = None,
        start: UniversalStep | None = None,
        budget: int | None = None,
        most: int | None = None,
    ) -> Iterator[UniversalStep]:
        """Search.

        Args:
            method: Another than the settings', for a baseline.
            start: The last step of a search to go on with; None starts one.
            budget: Go on until this many tokens went through the model, in place of the settings' steps.
            most: Steps at most with a budget, since a step without candidates costs nothing.

        Yields:
            Every step that is not done yet.
        """
        step = start if start is not None else self._start(method or self.settings.search.method)
        while not (self._is_done(step) if budget is None else _is_spent(step, budget, most)):
            step = self._advance(step)
            yield step

    def found(self, step: UniversalStep) -> Tensor:
        """(K,) the control that a search ended with.

        Raises:
            UserError: It has none.
        """
        if step.loss is None:
            raise UserError(
                "no control survived being decoded and encoded again: set control.must_roundtrip=false, or "
                "allow other tokens"
            )
        return torch.tensor(step.control_ids)

    def _start(self, method: str) -> UniversalStep:
        k = self.settings.control.k if method == "random" else 1
        return UniversalStep(method, 0, k, (), None, 0, (), None, 0, 0, None)

    def _is_done(self, step: UniversalStep) -> bool:
        search = self.settings.search
        if search.stop_when_matched and step.matches == len(self.judges):
            return True
        return step.k == self.settings.control.k and self._is_length_done(step)

    def _is_length_done(self, step: UniversalStep) -> bool:
        search = self.settings.search
        quota = search.steps if step.k == self.settings.control.k else search.warm_steps
        return step.at >= quota or 0 < search.patience <= step.stale

    def _advance(self, last: UniversalStep) -> UniversalStep:
        k, at, stale = last.k, last.at, last.stale
        if k < self.settings.control.k and self._is_length_done(last):
            k, at, stale = k + 1, 0, 0
        number = last.step + 1
        generator = torch.Generator().manual_seed(derive_seed(self.settings.seed, last.method, number))
        meter = Meter(last.forwards, last.forward_tokens, last.backward_tokens)
        batch = torch.randperm(len(self.layouts), generator=generator)[: self.settings.search.minibatch]
        rows = batch.sort()[0].tolist()
        # A batch lives for one step: the prefixes that it keeps would make the next step's cost depend on
        # whether the run was interrupted, and fill the memory with the keys of all pairs.
        pairs = PairBatch(self.model, [self.layouts[row] for row in rows], meter)
        controls, base = self._propose(last, k, stale, pairs, generator)
        best = self._best(controls, base, pairs, rows)
        grows = len(last.current_ids) < k and last.method != "random"
        is_better = best is not None and (grows or _is_less(best.loss, last.current_loss))
        step = replace(
            last,
            step=number,
            k=k,
            at=at + 1,
            stale=0 if is_better else stale + 1,
            batch_loss=best.batch_loss if best is not None else None,
            **asdict(meter),
        )
        if best is not None and is_better:
            step = replace(step, current_ids=best.ids, current_loss=best.loss)
        if best is not None and _is_less(best.loss, last.loss):
            step = replace(step, control_ids=best.ids, loss=best.loss, matches=best.matches)
        return step

    def _propose(
        self, last: UniversalStep, k: int, stale: int, pairs: PairBatch, generator: torch.Generator
    ) -> tuple[Tensor, Tensor | None]:
        """(N, K) candidates that are allowed, and the control (K,) that they share tokens with."""
        search = self.settings.search
        count = search.candidates * (_SURPLUS if self.settings.control.must_roundtrip else 1)
        control = torch.tensor(last.current_ids, dtype=torch.long)
        if last.method == "random":
            return self._admitted(proposals.whole(self.tokens, k, count, generator), pairs), None
        grows = len(control) < k
        if grows:
            blank = torch.tensor([BLANK])
            base = torch.cat([control, blank] if self._extends_right else [blank, control])
        else:
            base = control
        slopes = self._slopes(last.method, base, pairs, generator)  # (K, M)
        if grows:
            place = len(control) if self._extends_right else 0
            controls = proposals.extensions(
                self.tokens,
                control,
                slopes[place],
                count,
                skip=stale * count,
                to_the_right=self._extends_right,
            )
        else:
            controls = proposals.swaps(
                self.tokens,
                control,
                slopes,
                count,
                # Random swaps are drawn from all tokens: there is no top without a gradient.
                top_k=search.top_k if last.method == "gcg" else len(self.tokens),
                skip=stale * ((count + 1) // 2),
                generator=generator,
            )
        return self._admitted(controls, pairs), base

    def _slopes(self, method: str, control: Tensor, pairs: PairBatch, generator: torch.Generator) -> Tensor:
        """(K, M) gradient of the minibatch's mean loss by the allowed tokens; noise without a gradient."""
        if method != "gcg":
            return torch.rand(len(control), len(self.tokens), generator=generator)
        return pairs.gradient(control)[:, self.tokens.to(self.model.device)].cpu()

    def _admitted(self, controls: Tensor, pairs: PairBatch) -> Tensor:
        """The first N controls that survive in every prompt of the minibatch, where that is asked for."""
        if self.settings.control.must_roundtrip:
            for layout in pairs.layouts:
                controls = controls[self._survivors(controls, layout)]
        return controls[: self.settings.search.candidates]

    def _survivors(self, controls: Tensor, layout: Layout) -> Tensor:
        prompts = [layout.prompt(control) for control in controls.tolist()]
        return torch.tensor(survive(prompts, self.tokenizer), dtype=torch.bool)

    def _best(
        self, controls: Tensor, base: Tensor | None, pairs: PairBatch, rows: list[int]
    ) -> _Judged | None:
        """Of the minibatch's best few, the best on all judging pairs; `rows` are the minibatch's pairs."""
        if len(controls) == 0:
            return None
        on_batch = pairs.score(controls, base)
        mean = on_batch.loss.mean(0)  # (N,)
        few = mean.argsort(stable=True)[: self.settings.search.finalists]
        if self.settings.control.must_roundtrip:
            for layout in self.layouts:
                few = few[self._survivors(controls[few], layout)]
        if len(few) == 0:
            return None
        known = {row: place for place, row in enumerate(rows) if row < len(self.judges)}
        unknown = [row for row in range(len(self.judges)) if row not in known]
        rest = PairBatch(self.model, [self.judges[row] for row in unknown], pairs.meter).score(controls[few])
        seen = list(known.values())
        losses = torch.cat([on_batch.loss[seen][:, few], rest.loss])  # (judges, F)
        hits = torch.cat([on_batch.is_hit[seen][:, few], rest.is_hit])
        winner = int(losses.mean(0).argmin())
        ids = tuple(controls[few[winner]].tolist())
        matches = int(hits[:, winner].sum())
        return _Judged(ids, float(losses.mean(0)[winner]), matches, float(mean[few[winner]]))


def _is_less(loss: float, than: float | None) -> bool:
    return than is None or loss < than


def _is_spent(step: UniversalStep, budget: int, most: int | None) -> bool:
    return step.tokens >= budget or (most is not None and step.step >= most)

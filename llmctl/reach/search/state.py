"""The state that all search methods of one problem share: what was tried, and the best of each length."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from llmctl.reach.result import Step
from llmctl.reach.scoring.records import ControlScoring, Meter
from llmctl.reach.scoring.ties import tie_of
from llmctl.reach.vocabulary import Pool

# Early stopping looks for a hit after this many candidates: more waste tokens, fewer waste the device.
_CHUNK = {"cpu": 32, "cuda": 256}
# Up to here, all controls of a length are listed, to draw from those that were not tried yet.
_FEW_CONTROLS, _MOST_LISTED = 4096, 2**20


@dataclass(frozen=True)
class Best:
    """The best control of one length: a checked hit, else the one of least loss."""

    control: Tensor  # (K,) on the CPU
    loss: float
    is_hit: bool
    method: str
    margin: float = float("nan")  # the target's logit minus the best other, the least over the target tokens


class Search:
    """One problem under search."""

    def __init__(self, scorer: ControlScoring, pool: Pool, seed: int = 0) -> None:
        self.scorer = scorer
        self.pool = pool
        self.tokens = torch.tensor(pool.token_ids)  # (M,) ascending
        self.generator = torch.Generator().manual_seed(seed)
        self.best: dict[int, Best] = {}
        self.beams: dict[int, Tensor] = {}  # the beam method's own survivors by length, (W, K)
        self.spent: dict[int, int] = {}  # controls that the phases scored, by length
        self.uniform: dict[int, int] = {}  # of all controls considered, those drawn uniformly, by length
        self._tried: dict[int, Tensor] = {}  # hashes of the controls scored, by length
        mixer = torch.Generator().manual_seed(2310_04444)
        # Odd multipliers: for one token the hash is a bijection, so counting hashes counts tokens.
        self._odd = torch.randint(-(2**62), 2**62, (1024,), generator=mixer) * 2 + 1
        self.tie = tie_of(scorer.model)
        self.chunk = _CHUNK.get(scorer.device.type, _CHUNK["cpu"])

    @property
    def meter(self) -> Meter:
        """What the search has cost so far."""
        return self.scorer.meter

    def is_solved(self, k: int) -> bool:
        """Whether a control of length k is a checked hit."""
        return k in self.best and self.best[k].is_hit

    def has_exhausted_tokens(self) -> bool:
        """Whether every allowed control of one token was scored."""
        return len(self._tried.get(1, ())) == len(self.tokens)

    def mark_exhausted(self) -> None:
        """Note that every allowed control of one token was scored elsewhere, in a scan of the state."""
        self._remember(self.tokens[:, None])
        self.spent[1] = len(self.tokens)

    def untried(self, k: int) -> int:
        """How many controls of length k were never looked at."""
        tried = self._tried.get(k)
        return int(len(self.tokens) ** k) - (0 if tried is None else len(tried))

    def longest(self, k: int) -> Best | None:
        """The best control of the greatest length below k, or None."""
        shorter = [length for length in self.best if 0 < length < k]
        return self.best[max(shorter)] if shorter else None

    def step(self, method: str, k: int) -> Step:
        """A record of where the search stands at length k."""
        best = self.best[k]
        meter = self.meter
        control = tuple(best.control.tolist())
        return Step(method, k, control, best.loss, best.is_hit, meter.forwards, meter.forward_tokens)

    def fresh(self, controls: Tensor) -> Tensor:
        """The controls (N, K) that were never scored, each once, in their order."""
        hashes = self._hash(controls)
        count = torch.arange(len(hashes))
        unique, place = hashes.unique(return_inverse=True)
        first = torch.full((len(unique),), len(hashes)).scatter_reduce_(0, place, count, "amin")
        keep = count == first[place]
        tried = self._tried.get(controls.shape[1])
        return controls[keep if tried is None else keep & ~torch.isin(hashes, tried)]

    def evaluate(
        self,
        controls: Tensor,
        method: str,
        *,
        base: Tensor | None = None,
        stop_early: bool = True,
        is_planned: bool = True,
    ) -> tuple[Tensor, Tensor]:
        """Score controls and note the best.

        Args:
            controls: (N, K) the most promising first.
            method: Who asks, for the record.
            base: (K,) the control they were made from; see `Scorer.score`.
            stop_early: Leave out the rest after the first checked hit.
            is_planned: Count the controls in `spent`; those that shorten a witness are not part of a plan.

        Returns:
            The controls that were scored, (n, K), and their losses, (n,).
        """
        k = controls.shape[1]
        scored, losses = [], []
        for chunk in controls.split(self.chunk if stop_early else max(len(controls), 1)):
            self._remember(chunk)
            admitted = chunk[torch.tensor(self.pool.admits(chunk.tolist()), dtype=torch.bool)]
            if len(admitted) == 0:
                continue
            scores = self.scorer.score(admitted, base)
            if is_planned:
                self.spent[k] = self.spent.get(k, 0) + len(admitted)
            self._note(admitted, scores.loss, scores.margin, method)
            scored.append(admitted)
            losses.append(scores.loss)
            if stop_early and self.is_solved(k):
                break
        if not scored:
            return controls[:0], torch.empty(0)
        return torch.cat(scored), torch.cat(losses)

    def draw(self, count: int, k: int) -> Tensor:
        """(count, K) controls, each token drawn uniformly and independently."""
        return self.tokens[torch.randint(len(self.tokens), (count, k), generator=self.generator)]

    def evaluate_uniform(
        self, count: int, k: int, method: str, *, stop_early: bool = True
    ) -> tuple[Tensor, Tensor]:
        """Score up to `count` controls of length k that are drawn uniformly, and count the draws.

        A draw that was scored before is not scored again, but it counts: it is known to be no hit. Where
        few controls are left, the draw is without replacement from those, which have at least as many hits
        per control as all controls together; so the bound from such draws holds for all controls too.

        Args:
            count: Number of controls.
            k: Their length.
            method: The method that asks, for the record.
            stop_early: As in `evaluate`.

        Returns:
            As `evaluate`.
        """
        total = len(self.tokens) ** k
        if total <= _FEW_CONTROLS or (total <= _MOST_LISTED and 2 * self.untried(k) < total):
            every = torch.cartesian_prod(*[self.tokens] * k).view(-1, k)
            left = self.fresh(every)
            controls = left[torch.randperm(len(left), generator=self.generator)[:count]]
            repeated = 0
        else:
            drawn = self.draw(count, k)
            controls = self.fresh(drawn)
            repeated = len(drawn) - len(controls)
        scored, losses = self.evaluate(controls, method, stop_early=stop_early)
        # Whether a repeated draw was admitted is not asked again, so where controls can be refused it is not
        # counted.
        repeated = 0 if self.pool.must_roundtrip else repeated
        self.uniform[k] = self.uniform.get(k, 0) + len(scored) + repeated
        return scored, losses

    def _note(self, controls: Tensor, loss: Tensor, margin: Tensor, method: str) -> None:
        k = controls.shape[1]
        if self.is_solved(k):
            return
        for row in margin.argsort(descending=True).tolist():
            if margin[row] < -self.tie:
                break
            prompt = self.scorer.layout.prompt(controls[row].tolist())
            if self.scorer.emits(prompt):
                self.best[k] = Best(controls[row].clone(), float(loss[row]), True, method, float(margin[row]))
                return
        row = int(loss.argmin())
        if k not in self.best or loss[row] < self.best[k].loss:
            self.best[k] = Best(controls[row].clone(), float(loss[row]), False, method, float(margin[row]))

    def _remember(self, controls: Tensor) -> None:
        k = controls.shape[1]
        hashes = self._hash(controls)
        tried = self._tried.get(k)
        self._tried[k] = hashes.unique() if tried is None else torch.cat([tried, hashes]).unique()

    def _hash(self, controls: Tensor) -> Tensor:
        return ((controls + 1) * self._odd[: controls.shape[1]]).sum(1)  # wraps around on purpose

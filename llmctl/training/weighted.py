"""TRL's SFTTrainer with one change: every example's loss has a weight.

For a step with label tokens y_{b,t} of examples b = 1..B (all micro-batches, all processes)

    loss = sum_b w_b * sum_t -log p(y_{b,t} | y_{b,<t})  /  number of label tokens

which is reward-weighted regression (RISE, arXiv 2407.18219, with w = exp(r / tau)) and, with all weights 1,
TRL's own loss. The denominator counts tokens, not weights: an example of weight 0 still dilutes
the others, so weights are best scaled to a mean of 1.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import Sampler
from trl import SFTTrainer
from trl.trainer.utils import FusedCausalLMOutput

from llmctl.training.data.encoding import IGNORED

# Above this many logits (1 GiB in float32) they are computed in tiles, twice, instead of being kept.
MAX_LOGITS = 2**28
# Rows are sorted by length within pools of this many optimizer steps.
POOL_STEPS = 50


class WeightedCollator:
    """Pads a batch as the wrapped collator does and adds `weight`, (B,)."""

    def __init__(self, base: Any) -> None:
        self.base = base

    def __call__(self, examples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Collate examples with `input_ids`, `labels` and `weight`."""
        batch = self.base(list(examples))
        batch["weight"] = torch.tensor([example["weight"] for example in examples], dtype=torch.float32)
        return batch


class LengthSampler(Sampler[int]):
    """Shuffled rows in which neighbours have similar lengths, so that little is padded.

    The order is a function of (seed, epoch) alone: no random state has to survive a kill, and it does not
    change with how an optimizer step of `group` rows is divided into micro-batches and processes.

    Args:
        lengths: Number of tokens of each row.
        group: Number of rows per optimizer step.
        seed: Seed for the order.
        passes: The pass that each row belongs to, if an epoch consists of several passes over different rows,
            for example with other negatives. Passes follow one another. None is one pass.
    """

    def __init__(
        self, lengths: Sequence[int], group: int, seed: int, passes: Sequence[int] | None = None
    ) -> None:
        self.lengths = list(lengths)
        self._passes: dict[int, list[int]] = {}
        for row, number in enumerate(passes if passes is not None else [0] * len(self.lengths)):
            self._passes.setdefault(number, []).append(row)
        self.group = group  # rows of one optimizer step
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order comes next."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed * 100_003 + self.epoch)
        for number in sorted(self._passes):
            yield from self._shuffled(self._passes[number], generator)

    def _shuffled(self, rows: Sequence[int], generator: torch.Generator) -> Iterator[int]:
        order = [rows[place] for place in torch.randperm(len(rows), generator=generator).tolist()]
        pool = self.group * POOL_STEPS
        steps = []
        for start in range(0, len(order), pool):
            ranked = sorted(order[start : start + pool], key=lambda row: -self.lengths[row])
            steps += [ranked[first : first + self.group] for first in range(0, len(ranked), self.group)]
        # The step that is not full stays last: anywhere else it would shift the rows of the steps after it.
        full, rest = [s for s in steps if len(s) == self.group], [s for s in steps if len(s) < self.group]
        for step in torch.randperm(len(full), generator=generator).tolist():
            yield from full[step]
        for step_rows in rest:
            yield from step_rows


class WeightedTrainer(SFTTrainer):
    """SFTTrainer on rows with a `weight` column; the datasets are those of `data.prepare`.

    Only positions whose next token carries loss go through the output head. On GPUs TRL's tiled head does
    so; elsewhere a hook on the head picks the rows, so that whatever the model does after it (soft-capping,
    scaling) stays the model's own code.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.data_collator = WeightedCollator(self.data_collator)
        self.label_tokens = 0.0  # trained on so far, over all processes
        self._evaluated = torch.zeros(
            2, dtype=torch.float64
        )  # of the evaluation under way: weighted NLL, label tokens
        # The loss is divided by the label tokens of the whole step below, for every architecture.
        self.model_accepts_loss_kwargs = True
        self._loss_shifts_labels = True
        args_ = self.args
        group = args_.train_batch_size * args_.gradient_accumulation_steps * args_.world_size
        data = cast(Any, self.train_dataset)
        passes = data["pass"] if "pass" in data.column_names else None
        self.order = LengthSampler(data["length"], group, args_.seed, passes)

    @property
    def total_tokens(self) -> int:
        """Tokens that went through the model in training, over all processes, without padding."""
        return int(self._total_train_tokens)

    @total_tokens.setter
    def total_tokens(self, count: int) -> None:
        self._total_train_tokens = count

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """TRL's loss over weighted log-probabilities; metrics stay unweighted."""
        weight = inputs.pop("weight")  # (B,)
        if num_items_in_batch is not None:
            self.label_tokens += float(num_items_in_batch) / self.current_gradient_accumulation_steps

        def forward(**call: Any) -> Any:
            if not call.pop("fused_lm_head", False):
                return model(**call)
            outputs = self._score(model, call)
            if not model.training:
                nll = -(outputs.log_probs.detach() * weight[:, None]).sum()
                self._evaluated += torch.stack([nll.double(), outputs.label_mask.sum().double()]).cpu()
            outputs.log_probs = outputs.log_probs * weight[:, None]  # (B, T-1)
            return outputs

        return super().compute_loss(forward, inputs, return_outputs, num_items_in_batch)

    def evaluation_loop(self, *args: Any, **kwargs: Any) -> Any:
        """TRL's evaluation, with the loss over all label tokens in place of a mean of batches' means.

        Several processes are kept level by repeated rows, which count twice.
        """
        self._evaluated = torch.zeros(2, dtype=torch.float64)
        output = super().evaluation_loop(*args, **kwargs)
        nll, tokens = self.accelerator.reduce(self._evaluated.to(self.args.device), "sum").tolist()
        metrics = output.metrics or {}
        for name in metrics:
            if name.endswith("_loss"):
                metrics[name] = nll / tokens if tokens else 0.0
        return output

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is not None and self.optimizer is not None and not self.is_deepspeed_enabled:
            match_state_shapes(self.optimizer)

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int]:
        return self.order

    def _score(self, model: nn.Module, call: dict[str, Any]) -> Any:
        labels, own = call["labels"], cast(Any, self.model)
        logits = int((labels[:, 1:] != IGNORED).sum()) * own.config.get_text_config().vocab_size
        if labels.device.type != "cpu" or logits > MAX_LOGITS:
            return model(**call, fused_lm_head=True)
        return score_labels(model, own.get_output_embeddings(), call)


def match_state_shapes(optimizer: torch.optim.Optimizer) -> None:
    """Give single numbers in an optimizer's state the shape of their parameter.

    Sparse-GIN's scales had shape () in checkpoints of earlier versions, and have shape (1,) now.
    """
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            state = optimizer.state.get(parameter, {})
            for name, value in state.items():
                is_single = isinstance(value, Tensor) and value.ndim == 0 and parameter.shape == (1,)
                if is_single and name != "step":
                    state[name] = value.reshape(1)


def score_labels(model: nn.Module, head: nn.Module | None, call: Mapping[str, Any]) -> FusedCausalLMOutput:
    """Log-probabilities of the labels, with the output head run on labelled positions only.

    Args:
        model: A causal language model, possibly wrapped (PEFT, DDP); it is called once.
        head: Its output head, a module that the forward pass calls on hidden states (B, T, D). None, or a
            head that is not called as a module, costs speed and nothing else: all logits are computed.
        call: Arguments of the model, with `labels` (B, T), -100 where no loss is carried.

    Returns:
        log_probs (natural log), entropy (nats) and is_top1, each (B, T-1) and zero without a label;
        label_mask (B, T-1), True where there is one; aux_loss of mixture-of-experts models.
    """
    labels = call["labels"][:, 1:]  # (B, T-1)
    mask = labels != IGNORED
    keep = F.pad(mask, (0, 1))  # (B, T); the last position predicts nothing

    def only_labelled(_: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        hidden, *rest = args
        return (hidden[keep].unsqueeze(0), *rest)  # (1, n, D)

    handle = head.register_forward_pre_hook(only_labelled) if head is not None else None
    try:
        outputs = model(**{key: value for key, value in call.items() if key != "labels"})
    finally:
        if handle is not None:
            handle.remove()
    logits = outputs.logits
    # n < T always, since a first token is never a label: the two shapes cannot be confused.
    is_short = logits.shape[0] == 1 and logits.shape[1] == int(mask.sum())
    rows = (logits[0] if is_short else logits[keep]).float()  # (n, V)
    targets = labels[mask]  # (n,)
    log_all = rows.log_softmax(-1)  # (n, V)
    log_p = -F.nll_loss(log_all, targets, reduction="none")
    with torch.no_grad():
        entropy = -(log_all.exp() * log_all).sum(-1)
        is_top1 = rows.argmax(-1) == targets

    def spread(values: Tensor) -> Tensor:
        return values.new_zeros(mask.shape).masked_scatter(mask, values)  # (B, T-1)

    return FusedCausalLMOutput(
        log_probs=spread(log_p),
        entropy=spread(entropy),
        is_top1=spread(is_top1),
        label_mask=mask,
        aux_loss=getattr(outputs, "aux_loss", None),
    )

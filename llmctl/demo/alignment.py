"""Alignment: image tokens learn to be the embeddings of the words of the caption.

This needs no forward pass through the language model, so it is fast; training on captions comes after it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from llmctl.demo.attributes import CATEGORIES, COLOURS, PATTERNS, Look
from llmctl.demo.network import image_tokens
from llmctl.demo.teaching import TeachSettings, one_cycle, optimizer_step, without
from llmctl.demo.training_pictures import TrainingPictures
from llmctl.errors import UserError
from llmctl.runs import progress

GROUPS = (PATTERNS, tuple(COLOURS), CATEGORIES)  # in the order of a caption's words
_SHARPNESS = 4.0  # inverse temperature of the choice among the words of a group


@dataclass(frozen=True)
class Lexicon:
    """Embeddings of the words that captions consist of."""

    words: tuple[Tensor, ...]  # per group (words of the group, D)
    article: Tensor  # (D,)
    stop: Tensor  # (D,)

    @classmethod
    def of(cls, model: Any, tokenizer: Any) -> Lexicon:
        """Read a model's embeddings; a word of several tokens gets their mean."""
        table = model.get_input_embeddings().weight.detach()

        def look_up(text: str) -> Tensor:
            return table[tokenizer(text, add_special_tokens=False).input_ids].mean(0)

        groups = tuple(torch.stack([look_up(f" {word}") for word in group]) for group in GROUPS)
        return cls(groups, look_up(" A"), look_up("."))

    @property
    def scale(self) -> Tensor:
        """Mean norm of the words' embeddings."""
        return torch.cat(self.words).norm(dim=-1).mean()

    def caption(self, labels: Tensor, tokens: int) -> Tensor:
        """Embeddings of a caption, repeated until it fills the image tokens; the last one is the full stop.

        Args:
            labels: (B, 3) indices of a look's words in their groups.
            tokens: Image tokens per picture.

        Returns:
            (B, tokens, D).
        """
        size = len(labels)
        words = [group[labels[:, group_index]] for group_index, group in enumerate(self.words)]
        sentence = [self.article.expand(size, -1), *words, self.stop.expand(size, -1)]
        return torch.stack([sentence[kind] for kind in _kinds(tokens)], 1)


def _kinds(tokens: int) -> list[int]:
    """The index of the word of "A <pattern> <colour> <category>." that each image token is aligned with."""
    return [(position - tokens) % 5 for position in range(tokens)]


def labels_of(looks: Sequence[Look]) -> Tensor:
    """(B, 3) indices of the words of looks in their groups."""
    rows = [
        [GROUPS[0].index(one.pattern), GROUPS[1].index(one.colour), GROUPS[2].index(one.category)]
        for one in looks
    ]
    return torch.tensor(rows)


def teach_words(
    model: Any, tokenizer: Any, pictures: TrainingPictures, s: TeachSettings, *, quiet: bool = False
) -> float:
    """Train vision encoder and projector to output the embeddings of the caption's words as image tokens.

    Returns:
        The loss of the last step.

    Raises:
        UserError: This torch has no Muon, which trains a small encoder several times as fast as AdamW
            (K. Jordan et al., "Muon: an optimizer for hidden layers in neural networks", 2024).
    """
    if not hasattr(torch.optim, "Muon"):
        raise UserError(
            f"torch {torch.__version__} has no Muon, but the demo model needs it: take 2.9 or newer"
        )
    lexicon = Lexicon.of(model, tokenizer)
    tower, projector = model.model.vision_tower, model.model.multi_modal_projector
    matrices = [
        weight
        for part in (tower.encoder, projector.linear_1)
        for weight in part.parameters()
        if weight.ndim == 2
    ]
    others = without([*tower.parameters(), *projector.parameters()], matrices)
    muon = torch.optim.Muon(matrices, lr=s.muon_rate, weight_decay=0.01)
    adam = torch.optim.AdamW(others, lr=s.adam_rate, weight_decay=0.01)
    schedules = [one_cycle(optimizer, s.word_steps) for optimizer in (muon, adam)]
    tower.train()
    loss = torch.zeros(())
    with progress(s.word_steps, "align words", "steps", quiet=quiet) as bar:
        for batch, looks in pictures.batches(s.word_steps, s.word_batch, s.seed):
            loss = word_loss(image_tokens(model, batch), labels_of(looks), lexicon)
            optimizer_step(loss, (muon, adam), (*matrices, *others))
            for schedule in schedules:
                schedule.step()
            bar.advance(note=f"loss {loss.item():.2f}")
    tower.eval()
    return loss.item()


def word_loss(tokens: Tensor, labels: Tensor, lexicon: Lexicon) -> Tensor:
    """Distance of image tokens and the caption's words: squared error, and cross-entropy in each group.

    Args:
        tokens: (B, tokens, D) image tokens.
        labels: (B, 3) as `labels_of` gives them.
        lexicon: The words' embeddings in the language model.
    """
    kinds = torch.tensor(_kinds(tokens.shape[1]))
    target = lexicon.caption(labels, tokens.shape[1])
    loss = 0.9 * ((tokens - target) ** 2).sum(-1).mean() / lexicon.scale**2
    for group, words in enumerate(lexicon.words):
        own = tokens[:, kinds == group + 1]  # (B, tokens of this word, D)
        logits = _SHARPNESS * (own @ words.T).mean(1) / lexicon.scale  # (B, words of the group)
        loss = loss + F.cross_entropy(logits, labels[:, group])
    return loss

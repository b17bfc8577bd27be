"""How the demo's model learns to see: first words, then sentences. Its language model stays as it is.

Words: tower and projector learn to give image tokens that are the embeddings of the words of the caption,
which takes no pass through the language model. Sentences: the same two learn, through the frozen language
model, that the reply to a question about a picture is its caption.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from llmctl.demo.attributes import CATEGORIES, COLOURS, PATTERNS, Look, all_looks
from llmctl.demo.network import IMAGE_TOKEN, image_tokens
from llmctl.demo.pictures import draw_picture
from llmctl.errors import UserError
from llmctl.msr import prompts
from llmctl.runs import progress
from llmctl.sampling.common import derive_seed

QUESTIONS = (  # the first one half of the time: it is what item summaries ask by default
    prompts.ITEM,
    "Describe the picture.",
    "What is in the picture?",
    "Describe the item in the picture in one short sentence.",
)
GROUPS = (PATTERNS, tuple(COLOURS), CATEGORIES)  # in the order of a caption's words
_SHIFT = 3  # pixels that a picture is moved by at most, as a further variety
_SHARPNESS = 4.0  # of the choice among the words of a group


@dataclass(frozen=True)
class TeachSettings:
    """How long, and how fast, the model learns."""

    pictures: int = 16_000
    """Drawn once; each is seen several times, moved and mirrored."""
    word_steps: int = 900
    word_batch: int = 64
    muon_rate: float = 0.02
    """Of the matrices of the tower while it learns words."""
    adam_rate: float = 1e-3
    """Of everything else while it learns words."""
    sentence_steps: int = 48
    sentence_batch: int = 16
    sentence_rate: float = 3e-4
    seed: int = 0


@dataclass(frozen=True)
class Pictures:
    """Pictures at the tower's size, and what they show."""

    pixels: NDArray[np.uint8]  # (n, pixels, pixels, 3)
    looks: list[Look]

    @classmethod
    def draw(cls, count: int, size: int, seed: int, *, quiet: bool = False) -> Pictures:
        """Draw pictures at twice the size and scale them down, as the processor does with larger ones."""
        from PIL import Image

        rng = random.Random(derive_seed(seed, "pictures to learn from"))
        known, looks = all_looks(), []
        pixels = np.empty((count, size, size, 3), np.uint8)
        with progress(count, "draw", "pictures", quiet=quiet) as bar:
            for place in range(count):
                looks.append(rng.choice(known))
                picture = draw_picture(looks[-1], rng, 2 * size)
                pixels[place] = np.asarray(picture.resize((size, size), Image.Resampling.BICUBIC))
                bar.advance()
        return cls(pixels, looks)

    def batches(self, steps: int, size: int, seed: int) -> Iterator[tuple[Tensor, list[Look]]]:
        """Batches (B, 3, pixels, pixels), from -1 to 1, drawn with replacement, and their looks."""
        rng = np.random.default_rng(derive_seed(seed, "batches"))
        for _ in range(steps):
            places = rng.integers(len(self.looks), size=size)
            pixels = np.roll(self.pixels[places], rng.integers(-_SHIFT, _SHIFT + 1, size=2), axis=(1, 2))
            if rng.random() < 0.5:
                pixels = pixels[:, :, ::-1]
            batch = torch.from_numpy(np.ascontiguousarray(pixels)).permute(0, 3, 1, 2).float() / 127.5 - 1
            yield batch, [self.looks[place] for place in places]


@dataclass(frozen=True)
class Lexicon:
    """Embeddings of the words that captions are made of."""

    words: tuple[Tensor, ...]  # for each group (its words, D)
    article: Tensor  # (D,)
    stop: Tensor  # (D,)

    @classmethod
    def of(cls, model: Any, tokenizer: Any) -> Lexicon:
        """Read a model's embeddings; a word of several tokens is their mean."""
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
        """Embeddings of a caption, repeated until it fills the image tokens; the last one is its stop.

        Args:
            labels: (B, 3) places of a look's words in their groups.
            tokens: Image tokens of a picture.

        Returns:
            (B, tokens, D).
        """
        size = len(labels)
        words = [group[labels[:, place]] for place, group in enumerate(self.words)]
        sentence = [self.article.expand(size, -1), *words, self.stop.expand(size, -1)]
        return torch.stack([sentence[kind] for kind in _kinds(tokens)], 1)


def _kinds(tokens: int) -> list[int]:
    """Which word of "A <pattern> <colour> <category>." each image token stands for."""
    return [(place - tokens) % 5 for place in range(tokens)]


def labels_of(looks: Sequence[Look]) -> Tensor:
    """(B, 3) places of the words of looks in their groups."""
    rows = [
        [GROUPS[0].index(one.pattern), GROUPS[1].index(one.colour), GROUPS[2].index(one.category)]
        for one in looks
    ]
    return torch.tensor(rows)


def teach_words(
    model: Any, tokenizer: Any, pictures: Pictures, s: TeachSettings, *, quiet: bool = False
) -> float:
    """Teach tower and projector to give the caption's words as image tokens.

    Returns:
        The loss of the last step.

    Raises:
        UserError: This torch has no Muon, which teaches a small tower several times as fast as AdamW
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
    others = _without([*tower.parameters(), *projector.parameters()], matrices)
    muon = torch.optim.Muon(matrices, lr=s.muon_rate, weight_decay=0.01)
    adam = torch.optim.AdamW(others, lr=s.adam_rate, weight_decay=0.01)
    schedules = [_one_cycle(optimizer, s.word_steps) for optimizer in (muon, adam)]
    tower.train()
    loss = torch.zeros(())
    with progress(s.word_steps, "learn words", "steps", quiet=quiet) as bar:
        for batch, looks in pictures.batches(s.word_steps, s.word_batch, s.seed):
            loss = word_loss(image_tokens(model, batch), labels_of(looks), lexicon)
            _step(loss, (muon, adam), (*matrices, *others))
            for schedule in schedules:
                schedule.step()
            bar.advance(note=f"loss {loss.item():.2f}")
    tower.eval()
    return loss.item()


def word_loss(tokens: Tensor, labels: Tensor, lexicon: Lexicon) -> Tensor:
    """How far image tokens are from the words of the caption, as a choice and as vectors.

    Args:
        tokens: (B, tokens, D).
        labels: (B, 3).
        lexicon: Of the language model.
    """
    kinds = torch.tensor(_kinds(tokens.shape[1]))
    target = lexicon.caption(labels, tokens.shape[1])
    loss = 0.9 * ((tokens - target) ** 2).sum(-1).mean() / lexicon.scale**2
    for place, words in enumerate(lexicon.words):
        own = tokens[:, kinds == place + 1]  # (B, tokens of this word, D)
        logits = _SHARPNESS * (own @ words.T).mean(1) / lexicon.scale  # (B, words of the group)
        loss = loss + F.cross_entropy(logits, labels[:, place])
    return loss


def teach_sentences(
    model: Any, processor: Any, pictures: Pictures, s: TeachSettings, *, quiet: bool = False
) -> float:
    """Teach tower and projector to make the frozen language model reply with the caption.

    Returns:
        The loss of the last step, a token.
    """
    learner = Sentences(model, processor)
    weights = [*model.model.vision_tower.parameters(), *model.model.multi_modal_projector.parameters()]
    adam = torch.optim.AdamW(weights, lr=s.sentence_rate, weight_decay=0.01)
    schedule = _one_cycle(adam, s.sentence_steps)
    rng = random.Random(derive_seed(s.seed, "questions"))
    loss = torch.zeros(())
    frozen = _without(model.parameters(), weights)
    for weight in frozen:
        weight.requires_grad_(False)
    with progress(s.sentence_steps, "learn sentences", "steps", quiet=quiet) as bar:
        for batch, looks in pictures.batches(s.sentence_steps, s.sentence_batch, s.seed + 1):
            question = QUESTIONS[0] if rng.random() < 0.5 else rng.choice(QUESTIONS[1:])
            loss = learner.loss(batch, question, [look.caption for look in looks])
            _step(loss, (adam,), weights)
            schedule.step()
            bar.advance(note=f"loss {loss.item():.2f}")
    for weight in frozen:
        weight.requires_grad_(True)
    return loss.item()


class Sentences:
    """The loss of captions under a language model; what stands before the picture is computed once."""

    def __init__(self, model: Any, processor: Any) -> None:
        self._model, self._tokenizer, self._processor = model, processor.tokenizer, processor
        before, _ = self._around(QUESTIONS[0])
        with torch.no_grad():
            self._before = model.model.language_model(input_ids=torch.tensor([before]), use_cache=True)

    def loss(self, pixels: Tensor, question: str, captions: Sequence[str]) -> Tensor:
        """Mean negative log-likelihood of a token of the captions, the stop token included.

        Args:
            pixels: (B, 3, pixels, pixels).
            question: Asked after the picture.
            captions: B.
        """
        model, size = self._model, len(captions)
        _, after = self._around(question)
        rows = [self._ids(caption) + [self._tokenizer.eos_token_id] for caption in captions]
        longest = max(map(len, rows))
        pad = self._tokenizer.pad_token_id or 0
        replies = torch.tensor([row + [pad] * (longest - len(row)) for row in rows])  # (B, longest)
        embed = model.get_input_embeddings()
        asked = embed(torch.tensor([after])).expand(size, -1, -1)
        seen = torch.cat([image_tokens(model, pixels), asked, embed(replies[:, :-1])], 1)
        # rows are padded on the right, where a causal model's padding disturbs nothing
        hidden = model.model.language_model(inputs_embeds=seen, past_key_values=self._cache(size))
        logits = model.lm_head(hidden.last_hidden_state[:, -longest:])  # (B, longest, V)
        is_real = torch.arange(longest) < torch.tensor([len(row) for row in rows])[:, None]
        return F.cross_entropy(logits[is_real], replies[is_real])

    def _around(self, question: str) -> tuple[list[int], list[int]]:
        """Token ids before and after the picture, up to where the reply begins."""
        parts = [{"type": "image"}, {"type": "text", "text": question}]
        text = self._processor.apply_chat_template(
            [{"role": "user", "content": parts}], tokenize=False, add_generation_prompt=True
        )
        before, after = text.split(IMAGE_TOKEN)
        return self._ids(before), self._ids(after)

    def _ids(self, text: str) -> list[int]:
        return list(self._tokenizer(text, add_special_tokens=False).input_ids)

    def _cache(self, size: int) -> Any:
        """Keys and values of what stands before the picture, for B rows; a fresh one, as it will grow."""
        from transformers import DynamicCache

        cache = DynamicCache(config=self._model.config.text_config)
        for number, layer in enumerate(self._before.past_key_values.layers):
            cache.update(layer.keys.expand(size, -1, -1, -1), layer.values.expand(size, -1, -1, -1), number)
        return cache


def _without(weights: Any, taken: Sequence[Tensor]) -> list[Tensor]:
    known = {id(weight) for weight in taken}
    return [weight for weight in weights if id(weight) not in known]


def _one_cycle(optimizer: torch.optim.Optimizer, steps: int) -> Any:
    """Up over the first tenth of the steps, then down to nothing."""
    rate = optimizer.param_groups[0]["lr"]
    return torch.optim.lr_scheduler.OneCycleLR(
        optimizer, rate, total_steps=steps, pct_start=0.1, cycle_momentum=False
    )


def _step(loss: Tensor, optimizers: Sequence[torch.optim.Optimizer], weights: Sequence[Tensor]) -> None:
    for optimizer in optimizers:
        optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(weights, 1.0)
    for optimizer in optimizers:
        optimizer.step()

"""Captions: the second training stage of the demo's model, through the frozen language model."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from llmctl.demo.network import IMAGE_TOKEN, image_tokens
from llmctl.demo.teaching import TeachSettings, one_cycle, optimizer_step, without
from llmctl.demo.training_pictures import TrainingPictures
from llmctl.msr import prompts
from llmctl.runs import progress
from llmctl.sampling.common import derive_seed

QUESTIONS = (  # the first one is used half of the time: it is the default prompt of item summaries
    prompts.ITEM,
    "Describe the picture.",
    "What is in the picture?",
    "Describe the item in the picture in one short sentence.",
)


def teach_sentences(
    model: Any, processor: Any, pictures: TrainingPictures, s: TeachSettings, *, quiet: bool = False
) -> float:
    """Train vision encoder and projector so that the frozen language model answers with the caption.

    Returns:
        The loss per token of the last step.
    """
    captions = CaptionLoss(model, processor)
    weights = [*model.model.vision_tower.parameters(), *model.model.multi_modal_projector.parameters()]
    adam = torch.optim.AdamW(weights, lr=s.sentence_rate, weight_decay=0.01)
    schedule = one_cycle(adam, s.sentence_steps)
    rng = random.Random(derive_seed(s.seed, "questions"))
    loss = torch.zeros(())
    frozen = without(model.parameters(), weights)
    for weight in frozen:
        weight.requires_grad_(False)
    with progress(s.sentence_steps, "learn captions", "steps", quiet=quiet) as bar:
        for batch, looks in pictures.batches(s.sentence_steps, s.sentence_batch, s.seed + 1):
            question = QUESTIONS[0] if rng.random() < 0.5 else rng.choice(QUESTIONS[1:])
            loss = captions.loss(batch, question, [look.caption for look in looks])
            optimizer_step(loss, (adam,), weights)
            schedule.step()
            bar.advance(note=f"loss {loss.item():.2f}")
    for weight in frozen:
        weight.requires_grad_(True)
    return loss.item()


class CaptionLoss:
    """The loss of captions under a language model; the prompt before the picture is computed once.

    Args:
        model: As `build_network` gives it.
        processor: Its processor.
    """

    def __init__(self, model: Any, processor: Any) -> None:
        self._model, self._tokenizer, self._processor = model, processor.tokenizer, processor
        before, _ = self._around(QUESTIONS[0])
        with torch.no_grad():
            self._before = model.model.language_model(input_ids=torch.tensor([before]), use_cache=True)

    def loss(self, pixels: Tensor, question: str, captions: Sequence[str]) -> Tensor:
        """Negative log-likelihood (nats) per token of the captions, the end token included.

        Args:
            pixels: (B, 3, pixels, pixels) values from -1 to 1.
            question: The prompt after the picture.
            captions: B captions.
        """
        model, size = self._model, len(captions)
        _, after = self._around(question)
        rows = [self._ids(caption) + [self._tokenizer.eos_token_id] for caption in captions]
        longest = max(map(len, rows))
        pad = self._tokenizer.pad_token_id or 0
        replies = torch.tensor([row + [pad] * (longest - len(row)) for row in rows])  # (B, longest)
        embed = model.get_input_embeddings()
        prompt = embed(torch.tensor([after])).expand(size, -1, -1)
        inputs = torch.cat([image_tokens(model, pixels), prompt, embed(replies[:, :-1])], 1)
        # rows are padded on the right, where padding has no influence in a causal model
        hidden = model.model.language_model(inputs_embeds=inputs, past_key_values=self._cache(size))
        logits = model.lm_head(hidden.last_hidden_state[:, -longest:])  # (B, longest, V)
        is_real = torch.arange(longest) < torch.tensor([len(row) for row in rows])[:, None]
        return F.cross_entropy(logits[is_real], replies[is_real])

    def _around(self, question: str) -> tuple[list[int], list[int]]:
        """Token ids before the picture, and from there to where the answer begins."""
        parts = [{"type": "image"}, {"type": "text", "text": question}]
        text = self._processor.apply_chat_template(
            [{"role": "user", "content": parts}], tokenize=False, add_generation_prompt=True
        )
        before, after = text.split(IMAGE_TOKEN)
        return self._ids(before), self._ids(after)

    def _ids(self, text: str) -> list[int]:
        return list(self._tokenizer(text, add_special_tokens=False).input_ids)

    def _cache(self, size: int) -> Any:
        """Keys and values of the prompt before the picture, for B rows; a new cache, as it will grow."""
        from transformers import DynamicCache

        cache = DynamicCache(config=self._model.config.text_config)
        for number, layer in enumerate(self._before.past_key_values.layers):
            cache.update(layer.keys.expand(size, -1, -1, -1), layer.values.expand(size, -1, -1, -1), number)
        return cache

"""The architecture of the demo's vision-language model: a LLaVA on the embedded language model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

IMAGE_TOKEN = "<image>"
SYSTEM = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"  # as SmolLM2's own template
CHAT_TEMPLATE = (
    "{% for message in messages %}{% if loop.first and message['role'] != 'system' %}"
    "{{ '<|im_start|>system\\n" + SYSTEM + "<|im_end|>\\n' }}{% endif %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' }}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}{{ '<image>\\n' }}{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}{{ '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


@dataclass(frozen=True)
class TowerShape:
    """The shape of the SigLIP vision encoder; the default has 1.9 million parameters and 16 image tokens."""

    width: int = 192
    layers: int = 4
    heads: int = 4
    pixels: int = 56
    patch: int = 14

    @property
    def tokens(self) -> int:
        """Image tokens per picture."""
        return int((self.pixels // self.patch) ** 2)


def build_network(language: Path, shape: TowerShape, seed: int) -> tuple[Any, Any]:
    """A LLaVA with a randomly initialized vision encoder and projector, and its processor.

    Args:
        language: Folder of a Llama model with tokenizer; its weights are copied, and one token is added.
        shape: Shape of the vision encoder.
        seed: Seed for the random weights; the caller's random state is left as it was.

    Returns:
        `LlavaForConditionalGeneration` in float32, and `LlavaProcessor`.
    """
    import transformers as t

    from llmctl.models.quiet import quiet_libraries

    tokenizer: Any = t.AutoTokenizer.from_pretrained(language)
    tokenizer.add_tokens([IMAGE_TOKEN], special_tokens=True)
    tokenizer.chat_template = CHAT_TEMPLATE
    with quiet_libraries(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        text = t.AutoModelForCausalLM.from_pretrained(language, dtype=torch.float32)
        tower: Any = t.SiglipVisionConfig
        vision = tower(
            hidden_size=shape.width,
            intermediate_size=4 * shape.width,
            num_hidden_layers=shape.layers,
            num_attention_heads=shape.heads,
            image_size=shape.pixels,
            patch_size=shape.patch,
            vision_use_head=False,
        )
        config = t.LlavaConfig(
            vision_config=vision,
            text_config=text.config,
            image_token_index=tokenizer.convert_tokens_to_ids(IMAGE_TOKEN),
            vision_feature_select_strategy="full",
            vision_feature_layer=-1,
            tie_word_embeddings=text.config.tie_word_embeddings,
        )
        model = t.LlavaForConditionalGeneration(config).float()
        model.model.language_model.load_state_dict(text.model.state_dict())
        model.lm_head.load_state_dict(text.lm_head.state_dict())
        model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
        model.tie_weights()
        _init_positions(model.model.vision_tower, shape)
    model.generation_config = text.generation_config
    return model.eval(), _processor(tokenizer, shape)


def image_tokens(model: Any, pixels: Tensor) -> Tensor:
    """The embeddings that the language model gets for pictures.

    Args:
        model: As `build_network` gives it.
        pixels: (B, 3, pixels, pixels) values from -1 to 1.

    Returns:
        (B, tokens, D).
    """
    hidden = model.model.vision_tower(pixels, output_hidden_states=True).hidden_states[-1]
    return model.model.multi_modal_projector(hidden)


def _processor(tokenizer: Any, shape: TowerShape) -> Any:
    import transformers as t

    size = {"height": shape.pixels, "width": shape.pixels}
    # vLLM reads crop_size to count image tokens, though nothing is cropped
    reader = t.SiglipImageProcessorPil(size=size, crop_size=size, do_center_crop=False)
    return t.LlavaProcessor(
        image_processor=reader,
        tokenizer=tokenizer,
        patch_size=shape.patch,
        vision_feature_select_strategy="full",
        num_additional_image_tokens=0,
        chat_template=CHAT_TEMPLATE,
    )


def _init_positions(tower: Any, shape: TowerShape) -> None:
    """Initialize position embeddings with sines of both coordinates: a small encoder learns shapes sooner."""
    side, quarter = shape.pixels // shape.patch, shape.width // 4
    angles = torch.arange(side)[:, None] / 100 ** (torch.arange(quarter) / quarter)  # (side, D/4)
    waves = torch.cat([angles.sin(), angles.cos()], 1)  # (side, D/2)
    rows = waves[:, None].expand(side, side, -1)
    columns = waves[None].expand(side, side, -1)
    with torch.no_grad():
        tower.embeddings.position_embedding.weight.copy_(
            0.5 * torch.cat([rows, columns], -1).reshape(side * side, -1)
        )
        torch.nn.init.trunc_normal_(tower.embeddings.patch_embedding.weight, std=0.04)

"""Tiny random models of the families that llmctl supports, for tests and dry runs.

Each is an ordinary folder: a few thousand weights, a byte-level tokenizer, a ChatML template. The
vision-language ones are LLaVA-shaped, with a CLIP or a SigLIP tower of 56-pixel pictures.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmctl.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

TOWERS = ("clip", "siglip")
FAMILIES = ("llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3", "gpt2")
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] }}"
    "{{ '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
IMAGE_CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' }}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}{{ '<image>\\n' }}{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}{{ '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
_SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")


def make_tiny_model(
    folder: str | Path, family: str = "llama", *, seed: int = 0, can_answer: bool = False, **overrides: Any
) -> Path:
    """Save a tiny random model with tokenizer and chat template; returns the folder.

    Args:
        folder: Where to save it.
        family: One of `FAMILIES`.
        seed: Seed for the random weights; the global random state stays unchanged.
        can_answer: Whether yes and no are tokens of it.
        **overrides: Configuration fields (`num_hidden_layers=4`, say).

    Raises:
        UserError: No such family.
    """
    import torch
    from transformers import AutoModelForCausalLM

    tokenizer = answering_tokenizer() if can_answer else tiny_tokenizer()
    config = _config(family, len(tokenizer), overrides)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config).to(torch.float32)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return Path(folder)


def make_tiny_vlm(folder: str | Path, tower: str = "clip", *, seed: int = 0, **overrides: Any) -> Path:
    """Save a tiny random LLaVA with its processor; returns the folder.

    A picture of 56 pixels becomes 16 tokens. The tokenizer has tokens for yes and no, in three spellings.

    Args:
        folder: Where to save it.
        tower: "clip" (with a class token) or "siglip" (without).
        seed: Seed for the random weights; the global random state stays unchanged.
        **overrides: Fields of the language model's configuration.

    Raises:
        UserError: No such tower.
    """
    import torch
    import transformers as t

    if tower not in TOWERS:
        raise UserError(f"tower is {tower!r}, but it must be one of {', '.join(TOWERS)}")
    tokenizer = answering_tokenizer()
    tokenizer.add_tokens(["<image>"], special_tokens=True)
    image_id: Any = tokenizer.convert_tokens_to_ids("<image>")
    shape = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
    size = {"image_size": 56, "patch_size": 14}
    vision: Any = t.CLIPVisionConfig if tower == "clip" else t.SiglipVisionConfig
    has_class = tower == "clip"
    config = t.LlavaConfig(
        vision_config=vision(**shape, **size),
        text_config=_config("llama", len(tokenizer), overrides),
        image_token_index=image_id,
        vision_feature_select_strategy="default" if has_class else "full",
        vision_feature_layer=-1,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: Any = t.LlavaForConditionalGeneration(config)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    reader = t.CLIPImageProcessorPil if has_class else t.SiglipImageProcessorPil
    crop = {"crop_size": {"height": 56, "width": 56}, "size": {"shortest_edge": 56}} if has_class else {}
    processor = t.LlavaProcessor(
        image_processor=reader(**(crop or {"size": {"height": 56, "width": 56}})),
        tokenizer=tokenizer,
        patch_size=14,
        vision_feature_select_strategy="default" if has_class else "full",
        num_additional_image_tokens=int(has_class),
        chat_template=IMAGE_CHAT_TEMPLATE,
    )
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return Path(folder)


def answering_tokenizer() -> PreTrainedTokenizerFast:
    """The tiny tokenizer with tokens for yes and no, in three spellings."""
    tokenizer = tiny_tokenizer()
    tokenizer.add_tokens(["yes", "Yes", "YES", "no", "No", "NO"])
    return tokenizer


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level tokenizer of 259 tokens: the 256 bytes and three special tokens, with ChatML."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: index for index, token in enumerate([*_SPECIAL, *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=["<|im_start|>"],
        clean_up_tokenization_spaces=False,
        model_max_length=1024,
        chat_template=CHAT_TEMPLATE,
    )
    fast.padding_side = "left"
    return fast


def _config(family: str, vocabulary: int, overrides: dict[str, Any]) -> Any:
    import transformers as t

    shape = {
        "vocab_size": vocabulary,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 1024,
        "eos_token_id": 2,
        "pad_token_id": 0,
        "bos_token_id": 1,
    }
    if family == "llama":
        return t.LlamaConfig(**(shape | {"tie_word_embeddings": True} | overrides))
    if family == "mistral":
        return t.MistralConfig(**(shape | {"sliding_window": None, "head_dim": 16} | overrides))
    if family == "qwen2":
        return t.Qwen2Config(**(shape | overrides))
    if family == "qwen3":
        return t.Qwen3Config(**(shape | {"head_dim": 16} | overrides))
    if family == "gemma2":
        return t.Gemma2Config(**(shape | {"head_dim": 16, "sliding_window": 64} | overrides))
    if family == "gemma3":
        return t.Gemma3TextConfig(**(shape | {"head_dim": 16, "sliding_window": 64} | overrides))
    if family == "gpt2":
        common = {key: shape[key] for key in ("vocab_size", "eos_token_id", "pad_token_id", "bos_token_id")}
        return t.GPT2Config(
            **(common | {"n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 1024} | overrides)
        )
    raise UserError(f"family is {family!r}, but it must be one of {', '.join(FAMILIES)}")

"""Tiny random models of the families that read pictures in tiles or with positions of their own."""

from typing import Any

import torch
import transformers as t

from llmctl.models.tiny import IMAGE_CHAT_TEMPLATE, answering_tokenizer

SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
}
VISION = {**SIZES, "image_size": 56, "patch_size": 14}
TILES = [[56, 112], [112, 56], [112, 112]]


def tokenizer_with(*marks: str) -> Any:
    """The tiny tokenizer with marks of pictures."""
    tokenizer = answering_tokenizer()
    tokenizer.add_tokens(list(marks), special_tokens=True)
    return tokenizer


def text_config(tokenizer: Any, **more: Any) -> dict[str, Any]:
    """Of the language part; its weights are large enough for replies to differ."""
    ends = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    return {
        **SIZES,
        **ends,
        "vocab_size": len(tokenizer),
        "num_key_value_heads": 2,
        "max_position_embeddings": 1024,
        "initializer_range": 0.3,
        **more,
    }


def llava_next() -> tuple[Any, Any]:
    """LLaVA-NeXT: a picture is seen whole and in up to four tiles."""
    tokenizer = tokenizer_with("<image>")
    config = t.LlavaNextConfig(
        vision_config=t.CLIPVisionConfig(**VISION),
        text_config=t.LlamaConfig(**text_config(tokenizer)),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        image_grid_pinpoints=TILES,
        vision_feature_layer=-1,
        vision_feature_select_strategy="default",
    )
    reader = t.LlavaNextImageProcessorPil(
        size={"shortest_edge": 56}, crop_size={"height": 56, "width": 56}, image_grid_pinpoints=TILES
    )
    processor = t.LlavaNextProcessor(
        image_processor=reader,
        tokenizer=tokenizer,
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=IMAGE_CHAT_TEMPLATE,
    )
    return t.LlavaNextForConditionalGeneration(config), processor


def idefics3() -> tuple[Any, Any]:
    """Idefics3, whose way with tiles SmolVLM has taken over."""
    places = [f"<row_{row}_col_{column}>" for row in range(1, 4) for column in range(1, 4)]
    marks = ["<image>", "<fake_token_around_image>", "<global-img>", "<end_of_utterance>", *places]
    tokenizer = tokenizer_with(*marks)
    config = t.Idefics3Config(
        vision_config=VISION,
        text_config={"model_type": "llama", **text_config(tokenizer)},
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        scale_factor=2,
        pad_token_id=tokenizer.pad_token_id,
    )
    reader = t.Idefics3ImageProcessorPil(size={"longest_edge": 112}, max_image_size={"longest_edge": 56})
    processor = t.Idefics3Processor(
        image_processor=reader, tokenizer=tokenizer, image_seq_len=4, chat_template=IMAGE_CHAT_TEMPLATE
    )
    return t.Idefics3ForConditionalGeneration(config), processor


def qwen2_vl() -> tuple[Any, Any]:
    """Qwen2-VL: as many tokens as the picture is large, with positions in two dimensions."""
    tokenizer = tokenizer_with("<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|vision_end|>")
    image, video, start, end = (
        tokenizer.convert_tokens_to_ids(f"<|{mark}|>")
        for mark in ("image_pad", "video_pad", "vision_start", "vision_end")
    )
    rotary = {"rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 10000.0}
    vision = {
        "depth": 2,
        "embed_dim": 32,
        "hidden_size": 32,
        "num_heads": 2,
        "mlp_ratio": 2,
        "patch_size": 14,
    }
    config = t.Qwen2VLConfig(
        text_config=text_config(tokenizer, rope_parameters=rotary),
        vision_config=vision,
        image_token_id=image,
        video_token_id=video,
        vision_start_token_id=start,
        vision_end_token_id=end,
    )
    # put together by hand: its own way wants a reader of videos, and so torchvision
    processor = object.__new__(t.Qwen2VLProcessor)
    processor.image_processor = t.Qwen2VLImageProcessorPil(min_pixels=28 * 28, max_pixels=112 * 112)
    processor.tokenizer, processor.video_processor = tokenizer, None
    processor.image_token, processor.video_token = "<|image_pad|>", "<|video_pad|>"
    processor.image_token_id, processor.video_token_id = image, video
    processor.save_pretrained = tokenizer.save_pretrained
    marks = "<|vision_start|><|image_pad|><|vision_end|>"
    processor.chat_template = IMAGE_CHAT_TEMPLATE.replace("<image>", marks)
    return t.Qwen2VLForConditionalGeneration(config), processor


FAMILIES = {"llava-next": llava_next, "idefics3": idefics3, "qwen2-vl": qwen2_vl}


def save_family(name: str, folder: Any) -> Any:
    """Save a model; returns its processor, which the loader is to be given."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model, processor = FAMILIES[name]()
    model.generation_config.eos_token_id = processor.tokenizer.eos_token_id
    model.generation_config.pad_token_id = processor.tokenizer.pad_token_id
    model.save_pretrained(folder)
    processor.tokenizer.save_pretrained(folder)
    return processor

"""Load a model for computing with it in this process: weights, tokenizer, device, dtype, adapter."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError

from llmctl.errors import UserError
from llmctl.models.description import check_adapter, reads_images
from llmctl.models.devices import pick_device, pick_dtype, quantization_config
from llmctl.models.quiet import quiet_libraries
from llmctl.models.registry import resolve

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class Loaded:
    """A model in memory and what goes with it."""

    model: PreTrainedModel  # a PeftModel where an adapter was given
    tokenizer: PreTrainedTokenizerBase
    folder: Path
    device: torch.device
    dtype: torch.dtype
    processor: Any = None  # of a vision-language model: tokenizer and reader of pictures in one


def load(
    name: str | Path,
    *,
    device: str = "auto",
    dtype: str = "auto",
    quantization: str = "none",
    adapter: str | Path | None = None,
    trust_remote_code: bool = False,
    **model_options: Any,
) -> Loaded:
    """Load a decoder-only model in evaluation mode.

    Args:
        name: An alias, a folder or a Hub name.
        device: "auto" (CUDA where there is one, else CPU) or a torch device.
        dtype: "auto" (bfloat16 on CUDA devices that have it, float16 on older ones, float32 on CPU),
            "float32", "bfloat16" or "float16".
        quantization: "none", "nf4" (4 bit, double quantization, as QLoRA) or "int8"; through bitsandbytes.
        adapter: A folder with a PEFT adapter, put on top.
        trust_remote_code: Run model code that comes with the weights; needs `llmctl.trust.allow_code()` too.
        **model_options: Passed to `AutoModelForCausalLM.from_pretrained` (`attn_implementation`, say; with
            `device_map` the model is spread over devices as accelerate decides).

    Raises:
        UserError: No such model or adapter, no safetensors weights, an unknown dtype, device or
            quantization, or bitsandbytes is missing.
    """
    folder = resolve(name, with_code=trust_remote_code)
    place = pick_device(device)
    kind = pick_dtype(dtype, place)
    tokenizer = load_tokenizer(folder, trust_remote_code=trust_remote_code)
    model = _load_weights(folder, place, kind, quantization, trust_remote_code, model_options)
    if adapter is not None:
        model = attach_adapter(model, adapter)
    return Loaded(model.eval(), tokenizer, folder, place, kind)


def load_image_text(
    name: str | Path,
    *,
    device: str = "auto",
    dtype: str = "auto",
    quantization: str = "none",
    trust_remote_code: bool = False,
    **model_options: Any,
) -> Loaded:
    """Load a vision-language model (LLaVA, Qwen-VL, SmolVLM, ...) and its processor, in evaluation mode.

    Args:
        name: An alias, a folder or a Hub name.
        device: As for `load`.
        dtype: As for `load`.
        quantization: As for `load`.
        trust_remote_code: As for `load`.
        **model_options: Passed to `AutoModelForImageTextToText.from_pretrained`.

    Raises:
        UserError: As `load`; also where the model reads no pictures, or has no processor.
    """
    from transformers import AutoModelForImageTextToText

    folder = resolve(name, with_code=trust_remote_code)
    if not reads_images(folder):
        raise UserError(
            f"{name} is a model of text alone, but one that reads pictures is needed: give a vision-language "
            "model"
        )
    place = pick_device(device)
    kind = pick_dtype(dtype, place)
    processor = load_processor(folder, trust_remote_code=trust_remote_code)
    model = _load_weights(
        folder, place, kind, quantization, trust_remote_code, model_options, AutoModelForImageTextToText
    )
    return Loaded(model.eval(), processor.tokenizer, folder, place, kind, processor)


def load_processor(name: str | Path, *, trust_remote_code: bool = False) -> Any:
    """The processor of a vision-language model; its tokenizer pads on the left, with a padding token.

    Raises:
        UserError: No such model, or the folder holds no processor.
    """
    from transformers import AutoProcessor

    folder = resolve(name, with_code=trust_remote_code)
    try:
        with quiet_libraries():
            processor = AutoProcessor.from_pretrained(folder, trust_remote_code=trust_remote_code)
    except Exception as error:  # the tokenizers library raises bare exceptions
        raise UserError(
            f"{name} has no processor that can be read ({_first_line(error)}): install what it lacks (models "
            "that also read videos need torchvision), or put the processor's files into the folder"
        ) from error
    if getattr(processor, "image_processor", None) is None:
        raise UserError(f"{name} has no reader of pictures: put its preprocessor_config.json into the folder")
    if processor.tokenizer.pad_token is None:
        processor.tokenizer.pad_token = processor.tokenizer.eos_token
    processor.tokenizer.padding_side = "left"
    return processor


def load_tokenizer(name: str | Path, *, trust_remote_code: bool = False) -> PreTrainedTokenizerBase:
    """The tokenizer of a model, padding on the left, with a padding token.

    Raises:
        UserError: No such model, or the folder holds no tokenizer.
    """
    from transformers import AutoTokenizer

    folder = resolve(name, with_code=trust_remote_code)
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=trust_remote_code)
    except Exception as error:  # the tokenizers library raises bare exceptions
        raise UserError(f"{name} has no tokenizer that can be read ({_first_line(error)})") from error
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    tokenizer.padding_side = "left"  # replies continue the last prompt token
    return tokenizer


def attach_adapter(
    model: Any, adapter: str | Path, *, name: str = "default", is_trainable: bool = False
) -> Any:
    """Put a saved PEFT adapter on a model, or one more on a model that has some already.

    Raises:
        UserError: The folder is no PEFT adapter, has no safetensors weights, or fits another model.
    """
    folder = Path(adapter)
    check_adapter(folder)
    if not (folder / "adapter_model.safetensors").is_file():
        raise UserError(f"adapter {adapter} has no adapter_model.safetensors: only safetensors are loaded")
    register_adapters()
    try:
        with quiet_libraries():
            from peft import PeftModel

            if not isinstance(model, PeftModel):
                return PeftModel.from_pretrained(model, folder, adapter_name=name, is_trainable=is_trainable)
            model.load_adapter(str(folder), adapter_name=name, is_trainable=is_trainable)
            return model
    except (RuntimeError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise UserError(f"adapter {adapter} does not fit the model ({_first_line(error)})") from error


def register_adapters() -> None:
    """Make the project's own adapters known to PEFT, so that their folders load by type."""
    from importlib import import_module
    from importlib.util import find_spec

    if find_spec("llmctl.gin") is not None:
        import_module("llmctl.gin").register()


def _load_weights(
    folder: Path,
    device: torch.device,
    dtype: torch.dtype,
    quantization: str,
    trust: bool,
    options: dict[str, Any],
    kind: Any = None,
) -> Any:
    """Weights of `kind` (an auto class of transformers), of a causal language model where None."""
    from transformers import AutoModelForCausalLM

    kind = AutoModelForCausalLM if kind is None else kind
    if not any(folder.glob("*.safetensors")):
        raise UserError(f"{folder} has no safetensors weights: convert it with save_pretrained first")
    if '"graph_llama"' in (folder / "config.json").read_text(encoding="utf-8"):
        register_adapters()  # which makes transformers know the project's own architecture, too
    options = {"dtype": dtype, "use_safetensors": True, "trust_remote_code": trust, **options}
    if quantization != "none":
        options |= {
            "quantization_config": quantization_config(quantization, dtype),
            "device_map": str(device),
        }
    try:
        with quiet_libraries():
            loaded: Any = kind.from_pretrained(folder, output_loading_info=True, **options)
    except (OSError, ValueError, KeyError, TypeError, ImportError, SafetensorError, RuntimeError) as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise UserError(
                f"{folder} does not fit in the memory of {device}: set quantization or a smaller dtype"
            ) from error
        what = "a causal language model" if kind is AutoModelForCausalLM else "a vision-language model"
        raise UserError(f"{folder} cannot be loaded as {what} ({_first_line(error)})") from error
    model, found = loaded
    if found["missing_keys"]:  # transformers would go on with random ones
        raise UserError(
            f"{folder} lacks {len(found['missing_keys'])} weights of its model, "
            f"{min(found['missing_keys'])} among them: fetch or save the model again"
        )
    return model if "device_map" in options else _place(model, device)


def _place(model: Any, device: torch.device) -> Any:
    try:
        return model.to(device)
    except (RuntimeError, AssertionError) as error:  # no such device, or no room on it
        raise UserError(
            f"the model cannot be put on {device} ({_first_line(error)}): use another one"
        ) from error


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]

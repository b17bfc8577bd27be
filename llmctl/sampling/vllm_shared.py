"""The running vLLM engine that a sampler and its adapter views share."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from llmctl.errors import EngineError, UserError
from llmctl.messages import Conversation
from llmctl.models.description import reads_images
from llmctl.models.image_text import encode, image_token_of, render_with_pictures
from llmctl.models.loading import load_processor, load_tokenizer
from llmctl.models.picture_parts import split_pictures
from llmctl.models.registry import resolve
from llmctl.sampling.common import render
from llmctl.sampling.vllm_lora import Adapter, read_adapter
from llmctl.sampling.vllm_open import EngineOptions, OpenEngine, first_line, open_llm, process_as_it_was


class SharedEngine:
    """What a sampler and its views share: the engine, the tokenizer, the adapters that it knows."""

    @process_as_it_was()
    def __init__(self, model: str | Path, options: EngineOptions, adapter_rank: int = 0) -> None:
        self._folder, self._options = resolve(model, with_code=options.trust_remote_code), options
        trust = options.trust_remote_code
        self.processor = (
            load_processor(self._folder, trust_remote_code=trust) if reads_images(self._folder) else None
        )
        self.tokenizer = load_tokenizer(self._folder, trust_remote_code=trust)
        self._open: OpenEngine | None = open_llm(self._folder, options, adapter_rank)
        config = self.llm.llm_engine.vllm_config
        self.context_length = int(config.model_config.max_model_len)
        self.vocabulary = int(config.model_config.get_vocab_size())
        self.details = {
            "vllm": import_module("vllm").__version__,
            "dtype": str(config.model_config.dtype).removeprefix("torch."),
            "tensor_parallel": options.tensor_parallel,
            "max_lora_rank": options.max_lora_rank,
            "block_tokens": int(config.cache_config.block_size),
        }
        self._loras: dict[tuple[str, int, int], Any] = {}

    def prompt(self, conversation: Conversation) -> dict[str, Any]:
        """A conversation as vLLM takes it: token ids, or text and pictures where there are any."""
        if self.processor is None:
            return {"prompt_token_ids": render(self.tokenizer, conversation)}
        mark = image_token_of(self.processor)
        messages, pictures = split_pictures(conversation, mark)
        text = render_with_pictures(self.processor, messages)
        if pictures:
            return {"prompt": text, "multi_modal_data": {"image": [p.convert("RGB") for p in pictures]}}
        return {"prompt_token_ids": list(encode(self.processor, text, [])[0])}

    def generate(self, prompts: Sequence[dict[str, Any]], params: Sequence[Any], lora: Any) -> list[Any]:
        """One RequestOutput a prompt, in order.

        Raises:
            EngineError: The engine failed; the requests of this call are dropped.
        """
        llm = self.llm
        try:
            # The engine draws from torch's generator too, though every request brings one of its own.
            with torch.random.fork_rng(devices=[]):
                return llm.generate(list(prompts), list(params), use_tqdm=False, lora_request=lora)
        except BaseException as error:
            self._drop_requests()  # else they would come back as answers to the next call
            if isinstance(error, Exception):
                raise EngineError(f"vLLM failed ({first_line(error)})") from error
            raise

    def _drop_requests(self) -> None:
        engine = self.llm.llm_engine
        if engine.has_unfinished_requests():
            engine.abort_request(list(engine.output_processor.request_states), internal=True)

    def lora(self, adapter: str | Path | None) -> Any:
        """The LoRARequest of an adapter folder, loaded into the engine; None without adapter.

        Raises:
            UserError: The folder holds no adapter that vLLM can take.
        """
        llm = self.llm
        if adapter is None:
            return None
        found = read_adapter(adapter, self._options.max_lora_rank)
        if found.key in self._loras:
            return self._loras[found.key]
        from vllm.lora.request import LoRARequest

        number = len(self._loras) + 1
        request = LoRARequest(f"adapter-{number}", number, str(found.folder))
        llm = self._with_room_for(found)
        try:
            llm.llm_engine.add_lora(request)
        except Exception as error:  # a subprocess engine wraps what the loader raised
            raise UserError(
                f"adapter {adapter} does not fit ({first_line(error)}): take engine transformers"
            ) from error
        self._loras[found.key] = request
        return request

    def _with_room_for(self, adapter: Adapter) -> Any:
        """The engine, opened again where it has no room for the adapter; it loads known ones when needed."""
        opened = self._open
        if opened is not None and adapter.rank > opened.lora_rank:
            if opened.can_reopen:
                self.close()
                opened = self._open = open_llm(self._folder, self._options, adapter.rank)
            if adapter.rank > opened.lora_rank:
                raise UserError(
                    f"adapter {adapter.folder} cannot be used: vLLM has no LoRA for this architecture, take "
                    "engine transformers"
                )
        return self.llm

    @property
    def llm(self) -> Any:
        """The running `LLM`.

        Raises:
            UserError: The sampler is closed.
        """
        if self._open is None:
            raise UserError("the sampler is closed: open it again")
        return self._open.llm

    def close(self) -> None:
        """End the engine, once."""
        if self._open is not None:
            opened, self._open = self._open, None
            opened.close()

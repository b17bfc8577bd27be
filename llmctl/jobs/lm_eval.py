"""lm-eval's tasks on any llmctl sampler: `lm_eval.simple_evaluate(model=SamplerLM(sampler), tasks=[...])`.

    from llmctl.jobs.lm_eval import SamplerLM
    with open_sampler("smollm2-135m") as sampler:
        results = lm_eval.simple_evaluate(model=SamplerLM(sampler), tasks=["arc_easy"])

Generation goes through `chat`, each context as one user message. Log-likelihoods are of raw text, as lm-eval
defines them, and need an engine that scores continuations (transformers).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llmctl.errors import EngineError, UserError
from llmctl.sampling import Sampler, ScoringSampler, Settings

try:
    from lm_eval.api.model import TemplateLM
    from lm_eval.utils import get_rolling_token_windows, make_disjoint_window
except ImportError as error:
    raise UserError(
        "lm-eval tasks need the package lm_eval, which is not installed: run `pip install lm_eval`"
    ) from error

DEFAULT_NEW_TOKENS = 256  # lm-eval's own default for tasks that set none
_SPARE = 2  # tokens of the context that are left to the engine
_CONTEXT = 2048  # context length for rolling windows, where an engine does not know its model's


class SamplerLM(TemplateLM):
    """An lm-eval model over a sampler.

    Args:
        sampler: Any sampler; loglikelihood tasks need one that scores continuations.
        seed: Seed of sampled generations; greedy ones, lm-eval's default, do not depend on it.
        batch: Maximum requests per call of the sampler.
    """

    def __init__(self, sampler: Sampler, *, seed: int = 0, batch: int = 64) -> None:
        super().__init__()
        self.sampler, self.seed, self.batch = sampler, seed, batch

    @property
    def eot_token_id(self) -> int:
        """The end token of the model's tokenizer, which is used in place of an empty context."""
        return int(self._scoring().tokenizer.eos_token_id)

    @property
    def tokenizer_name(self) -> str:
        """A name for lm-eval's caches."""
        return self.sampler.info.model.replace("/", "__")

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **kwargs: Any) -> list[int]:
        """Token ids of a text, without special tokens unless asked for."""
        encoded = self._scoring().tokenizer(
            string, add_special_tokens=bool(add_special_tokens), verbose=False
        )
        return list(encoded.input_ids)

    def _loglikelihood_tokens(
        self, requests: Sequence[tuple[Any, list[int], list[int]]], **kwargs: Any
    ) -> list[tuple[float, bool]]:
        scores: list[tuple[float, bool]] = []
        for start in range(0, len(requests), self.batch):
            pairs = [
                self._cut(context, wanted) for _, context, wanted in requests[start : start + self.batch]
            ]
            found = self._scoring().continuation_logprobs([a for a, _ in pairs], [b for _, b in pairs])
            scores += [(sum(logprobs), is_greedy) for logprobs, is_greedy in found]
        for (texts, _, _), score in zip(requests, scores, strict=True):
            if texts is not None:
                self.cache_hook.add_partial("loglikelihood", texts, score)
        return scores

    def loglikelihood_rolling(self, requests: Any, disable_tqdm: bool = False) -> list[float]:
        """Log-likelihood of whole texts, in windows of the model's context; natural log, summed."""
        totals = []
        for request in requests:
            (text,) = request.args
            windows = get_rolling_token_windows(
                token_list=self.tok_encode(text),
                prefix_token=self.prefix_token_id,
                max_seq_len=self._context,
                context_len=1,
            )
            pairs = [(None, *make_disjoint_window(window)) for window in windows]
            totals.append(sum(score for score, _ in self._loglikelihood_tokens(pairs)))
            self.cache_hook.add_partial("loglikelihood_rolling", (text,), totals[-1])
        return totals

    def generate_until(self, requests: Any, disable_tqdm: bool = False) -> list[str]:
        """Replies to contexts, each cut at its `until`.

        Raises:
            EngineError: The engine failed on a context.
        """
        texts: list[str] = [""] * len(requests)
        groups: dict[Settings, list[int]] = {}
        for number, request in enumerate(requests):
            groups.setdefault(_settings(request.args[1], self.seed), []).append(number)
        for settings, numbers in groups.items():
            for start in range(0, len(numbers), self.batch):
                part = numbers[start : start + self.batch]
                asked = [[{"role": "user", "content": requests[number].args[0]}] for number in part]
                for number, (reply,) in zip(part, self.sampler.chat(asked, settings), strict=True):
                    if reply.is_error:
                        raise EngineError(f"the engine failed on request {number} of lm-eval: {reply.error}")
                    texts[number] = reply.text
                    self.cache_hook.add_partial("generate_until", requests[number].args, reply.text)
        return texts

    def _scoring(self) -> ScoringSampler:
        if not isinstance(self.sampler, ScoringSampler):
            raise UserError(
                f"engine {self.sampler.info.engine} cannot score continuations, which this lm-eval "
                "task needs: take engine transformers, or a task of output_type generate_until"
            )
        return self.sampler

    @property
    def _context(self) -> int:
        return (self._scoring().info.context_length or _CONTEXT) - _SPARE

    def _cut(self, context: list[int], wanted: list[int]) -> tuple[list[int], list[int]]:
        """Cut the beginning of a context so that the scored tokens fit behind it."""
        wanted = wanted[-self._context :]
        return context[-max(1, self._context + 1 - len(wanted)) :], wanted


def _settings(options: dict[str, Any], seed: int) -> Settings:
    """lm-eval's generation options as sampling settings; greedy unless the task samples."""
    until = options.get("until") or ()
    temperature = float(options.get("temperature") or 0.0) if options.get("do_sample", True) else 0.0
    return Settings(
        temperature=temperature,
        top_p=float(options.get("top_p") or 1.0),
        max_tokens=int(options.get("max_gen_toks") or DEFAULT_NEW_TOKENS),
        stop=(until,) if isinstance(until, str) else tuple(until),
        seed=seed,
    )

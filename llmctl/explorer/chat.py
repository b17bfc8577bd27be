"""A problem of one's own, turn by turn: the model with its adapter beside the model without it."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

from llmctl.errors import UserError
from llmctl.explorer.events import ChatBegan, ReplyEnded, ReplyGrew
from llmctl.explorer.jobs import Job
from llmctl.explorer.models import Models, Open
from llmctl.explorer.requests import ChatRequest
from llmctl.rise.records import Turn
from llmctl.rise.turns import next_conversation
from llmctl.sampling.common import check_length, derive_seed, render
from llmctl.tasks import Problem
from llmctl.tasks.answers import normalize_answer, read_answer
from llmctl.tasks.base import CORRECT, INCORRECT, BaseTask


class OwnTask(BaseTask):
    """One problem that somebody typed; right is what says the same number, or the same words.

    Args:
        system: The system prompt; may be empty.
        answer: The reference answer; empty where there is none.
    """

    name = "own"
    form = "end with the answer."

    def __init__(self, system: str, answer: str) -> None:
        self.system = system
        self.kind = next(
            (kind for kind in ("number", "numbers", "text") if normalize_answer(answer, kind)), "text"
        )
        self.answer = normalize_answer(answer, self.kind)

    def _stream(self, split: str, limit: int | None, seed: int) -> Any:
        return iter(())

    def read(self, problem: Problem, text: str) -> str | None:
        """The answer of a reply, in the form of the reference answer."""
        return read_answer(text, self.kind)

    def is_correct(self, problem: Problem, answer: str) -> bool:
        """Whether an answer is the reference answer."""
        return self.answer is not None and answer == self.answer


def converse(job: Job, models: Models, request: ChatRequest) -> None:
    """Let one model or two attempt a problem over several turns, without an oracle.

    Every answer is followed by what follows a wrong one, right or not, as in the evaluation of RISE.
    Events: `ChatBegan`, `ReplyGrew`, `ReplyEnded`.

    Raises:
        UserError: The model has no chat template, or the conversation is longer than its context.
        Stopped: The job is to end.
    """
    found = models.get(request.model, request.adapter)
    if not found.tokenizer.chat_template:
        raise UserError(
            f"{request.model} has no chat template, so it cannot hold a conversation: choose another"
        )
    task = OwnTask(request.system, request.answer)
    problem = Problem("own", request.problem, request.answer)
    sides = ["tuned", "base"] if request.adapter is not None else ["base"]
    job.say(ChatBegan(sides, retry=f"{INCORRECT}\n{request.problem}"))
    attempts: dict[str, list[Turn]] = {side: [] for side in sides}
    for turn in range(request.turns):
        for side in sides:
            conversation = next_conversation(task, problem, attempts[side])
            seed = derive_seed(request.seed, turn)
            text, tokens = _reply(job, found, conversation, request, side, turn, seed)
            feedback = task.check(problem, text)
            attempts[side].append(
                Turn(text, feedback.reward, feedback.is_correct, feedback.answer, INCORRECT, tokens, None)
            )
            job.say(
                ReplyEnded(
                    side=side,
                    turn=turn,
                    text=text,
                    tokens=tokens,
                    answer=feedback.answer,
                    is_correct=feedback.is_correct if request.answer else None,
                    said=CORRECT if feedback.is_correct else feedback.message,
                )
            )


def _reply(
    job: Job, found: Open, conversation: list[Any], request: ChatRequest, side: str, turn: int, seed: int
) -> tuple[str, int]:
    """One reply, told token by token; its text, and how many tokens it has."""
    import torch
    from transformers import DynamicCache

    from llmctl.reach.scoring.scorer import context_of

    prompt = render(found.tokenizer, conversation)
    check_length(turn, len(prompt), request.new_tokens, context_of(found.model))
    generator = torch.Generator().manual_seed(seed)
    cache = DynamicCache(config=found.model.config)
    ends = _end_tokens(found)
    ids = torch.tensor([prompt], device=found.model.device)
    new: list[int] = []
    shown = ""
    for _ in range(request.new_tokens):
        job.step_aside()
        # Without its adapter a model is another one, for everybody: nobody else may run it meanwhile.
        with job.alone(), torch.inference_mode(), _side(found, side):
            logits = found.model(
                input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1
            ).logits
        token = _draw(logits[0, -1].float().cpu(), request.temperature, generator)
        if token in ends:
            break
        new.append(token)
        text = found.tokenizer.decode(new, skip_special_tokens=True)
        if not text.endswith("\ufffd"):  # half of a character: wait for the rest
            job.say(ReplyGrew(side, turn, text[len(shown) :]))
            shown = text
        ids = torch.tensor([[token]], device=found.model.device)
    return str(found.tokenizer.decode(new, skip_special_tokens=True)), len(new)


def _side(found: Open, side: str) -> Any:
    has_adapter = hasattr(found.model, "disable_adapter")
    return found.model.disable_adapter() if side == "base" and has_adapter else nullcontext()


def _draw(logits: Any, temperature: float, generator: Any) -> int:
    import torch

    if temperature == 0:
        return int(logits.argmax())
    return int(torch.multinomial((logits / temperature).softmax(-1), 1, generator=generator))


def _end_tokens(found: Open) -> set[int]:
    """Tokens that end a reply, as the model and its tokenizer name them."""
    named = found.model.generation_config.eos_token_id
    ends = set(named if isinstance(named, list) else [named])
    return {token for token in (*ends, found.tokenizer.eos_token_id) if token is not None}

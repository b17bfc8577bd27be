"""What every engine does alike: seeds for requests, checks of the input, use as a context manager."""

from __future__ import annotations

import hashlib
import json
import secrets
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Self

from llmctl.errors import UserError
from llmctl.messages import Conversation
from llmctl.sampling.types import BatchSettings, Completion, PromptTooLong, Settings

ROLES = ("system", "user", "assistant", "tool")


class Closing:
    """Lets a sampler be used as `with open_sampler(...) as sampler:`."""

    def close(self) -> None:
        """Free what the engine holds; nothing by default."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def request_seeds(seed: int | None, conversations: Sequence[Conversation]) -> list[int]:
    """One 63-bit seed per conversation, from the call's seed and the conversation itself.

    Equal conversations in one call get different seeds by their count so far; the place in the batch
    plays no part, so a batch in another order, or cut in two, gives the same samples.
    """
    root = secrets.randbits(63) if seed is None else seed
    seen: Counter[str] = Counter()
    seeds = []
    for conversation in conversations:
        text = json.dumps(list(conversation), sort_keys=True, default=_stable)
        seeds.append(derive_seed(root, text, seen[text]))
        seen[text] += 1
    return seeds


def _stable(value: Any) -> Any:
    """An image by its pixels, as its repr holds an address; a mapping as a dict."""
    if isinstance(value, Mapping):
        return dict(value)
    if callable(pixels := getattr(value, "tobytes", None)):
        return hashlib.blake2b(pixels(), digest_size=16).hexdigest()
    return repr(value)


def derive_seed(*parts: Any) -> int:
    """A 63-bit seed that depends on every part and on their order."""
    digest = hashlib.blake2b(json.dumps(parts, default=repr).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def check_conversations(conversations: Sequence[Conversation]) -> None:
    """Refuse what no chat template could render.

    Raises:
        UserError: A conversation is a bare string, empty, ends with no user message, or has a message
            without a known role or without content; its number in the batch is named.
    """
    for number, conversation in enumerate(conversations):
        where = f"conversation {number}"
        if isinstance(conversation, (str, bytes)) or not isinstance(conversation, Sequence):
            raise UserError(
                f"{where} is a {type(conversation).__name__}, but a list of messages is needed: "
                '[{"role": "user", "content": "..."}]'
            )
        if not conversation:
            raise UserError(f"{where} is empty, but it needs at least one user message")
        for message in conversation:
            if not hasattr(message, "get") or message.get("role") not in ROLES or "content" not in message:
                raise UserError(
                    f"{where} holds {message!r:.80}, but a message needs a role "
                    f"({', '.join(ROLES)}) and a content"
                )
        if conversation[-1]["role"] not in ("user", "tool"):
            raise UserError(
                f"{where} ends with a message of role {conversation[-1]['role']!r}, but a reply "
                "answers a user: end it with a user message"
            )


def check_prompts(
    prompts: Sequence[Sequence[int]], max_tokens: int, vocabulary: int, context_length: int | None
) -> None:
    """Refuse token ids that the model cannot continue by `max_tokens`.

    Raises:
        UserError: A prompt is empty, holds what is no id of the vocabulary, or is too long; its number in
            the batch is named.
    """
    for number, ids in enumerate(prompts):
        if len(ids) == 0:
            raise UserError(f"prompt {number} is empty, but it needs at least one token id")
        if (outside := next((token for token in ids if not 0 <= token < vocabulary), None)) is not None:
            raise UserError(
                f"prompt {number} holds token {outside}, but the vocabulary is 0 to {vocabulary - 1}: "
                "give ids of this model's tokenizer"
            )
        check_length(number, len(ids), max_tokens, context_length, what="prompt")


def check_continuations(
    prompts: Sequence[Sequence[int]],
    continuations: Sequence[Sequence[int]],
    vocabulary: int,
    context_length: int | None,
    new: int = 0,
) -> None:
    """Refuse pairs that cannot be scored.

    Args:
        prompts: Token ids.
        continuations: Token ids, as many lists.
        vocabulary: Its size.
        context_length: In tokens.
        new: Tokens that the engine needs beyond the two.

    Raises:
        UserError: One is empty, outside the vocabulary, or the two do not fit into the context.
    """
    for number, (prompt, wanted) in enumerate(zip(prompts, continuations, strict=True)):
        check_prompts([prompt], 0, vocabulary, None)
        check_prompts([wanted], 0, vocabulary, None)
        # the last token is scored, not read: it needs no place
        check_length(number, len(prompt), len(wanted) - 1 + new, context_length, what="prompt")


def check_length(
    number: int,
    prompt_tokens: int,
    max_tokens: int,
    context_length: int | None,
    *,
    what: str = "conversation",
) -> None:
    """Refuse a prompt that leaves no room for its reply.

    Raises:
        PromptTooLong: prompt_tokens + max_tokens is more than the context length.
    """
    if context_length is not None and prompt_tokens + max_tokens > context_length:
        raise PromptTooLong(
            f"{what} {number} has {prompt_tokens} tokens and asks for up to {max_tokens} new ones, but "
            f"the context is {context_length}: shorten the prompt, or lower max_tokens"
        )


def find_too_long(
    number: int, prompt_tokens: int, settings: Settings, context_length: int | None
) -> list[Completion] | None:
    """The completions of a prompt that leaves no room for its reply; None where there is room.

    Raises:
        PromptTooLong: There is no room, and the settings are not `BatchSettings`.
    """
    try:
        check_length(number, prompt_tokens, settings.max_tokens, context_length)
    except PromptTooLong as error:
        if not isinstance(settings, BatchSettings):
            raise
        return [Completion("", finish_reason="too_long", error=str(error))] * settings.n
    return None


def render(tokenizer: Any, conversation: Conversation) -> list[int]:
    """Token ids of a conversation up to where the reply begins.

    Raises:
        UserError: The tokenizer has no chat template, or the template refuses the conversation.
    """
    if not tokenizer.chat_template:
        raise UserError(
            f"{tokenizer.name_or_path} has no chat template: use an instruction-tuned model, "
            "or put a chat_template.jinja into the model's folder"
        )
    if any(not isinstance(message["content"], str) for message in conversation):
        raise UserError(
            f"a message holds a picture or other parts, but {tokenizer.name_or_path} reads text alone: give "
            "a vision-language model, or text"
        )
    try:
        text = tokenizer.apply_chat_template(list(conversation), tokenize=False, add_generation_prompt=True)
    except Exception as error:  # a template is a program of the model's own and may raise anything
        raise UserError(
            f"the chat template refuses the conversation ({error}): check roles and their order"
        ) from error
    # verbose=False: `check_length` says more of a long prompt than the tokenizer's warning
    return tokenizer(text, add_special_tokens=False, verbose=False).input_ids


def single_token_ids(tokenizer: Any, tokens: Sequence[str | int]) -> list[int]:
    """The id of each string, which must be one token of the vocabulary; ids stay what they are.

    Raises:
        UserError: A string is no token, or several.
    """
    ids = []
    for token in tokens:
        if isinstance(token, int):
            ids.append(token)
            continue
        found = tokenizer(token, add_special_tokens=False).input_ids
        if len(found) != 1:
            raise UserError(f"{token!r} is {len(found)} tokens of this model, but exactly one is needed")
        ids.append(found[0])
    return ids

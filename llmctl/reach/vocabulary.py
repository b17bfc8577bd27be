"""Which tokens a control may hold, and which controls survive decoding and encoding."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from llmctl.errors import UserError
from llmctl.reach.problem import Layout, Problem

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_WORD_STARTS = ("Ġ", "▁")  # how byte-level BPE and SentencePiece mark a token that begins a word
_SYSTEM_DICTIONARY = Path("/usr/share/dict/words")


class Pool:
    """The tokens and controls that a problem allows."""

    def __init__(
        self, problem: Problem, layout: Layout, tokenizer: PreTrainedTokenizerBase, vocabulary: int
    ) -> None:
        self.layout = layout
        self.tokenizer = tokenizer
        self.must_roundtrip = problem.must_roundtrip
        # Rows of the embedding beyond the tokenizer are padding that no text can hold.
        self.vocabulary = min(vocabulary, len(tokenizer))
        self.token_ids = allowed_tokens(problem, tokenizer, self.vocabulary)
        self.is_whole = len(self.token_ids) == self.vocabulary and not self.must_roundtrip

    def admits(self, controls: Sequence[Sequence[int]]) -> list[bool]:
        """Whether each control survives, where the problem demands it (otherwise all True)."""
        if not self.must_roundtrip:
            return [True] * len(controls)
        return survive([self.layout.prompt(control) for control in controls], self.tokenizer)


def survive(prompts: Sequence[list[int]], tokenizer: PreTrainedTokenizerBase) -> list[bool]:
    """Whether each prompt, decoded and encoded again, gives the same ids."""
    if not prompts:
        return []
    texts = [decode(prompt, tokenizer) for prompt in prompts]
    encoded = tokenizer(texts, add_special_tokens=False)["input_ids"]
    return [list(ids) == list(prompt) for ids, prompt in zip(encoded, prompts, strict=True)]


def decode(ids: Sequence[int], tokenizer: PreTrainedTokenizerBase) -> str:
    """The exact text of ids: special tokens shown, no spaces tidied."""
    return str(tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False))


def allowed_tokens(problem: Problem, tokenizer: PreTrainedTokenizerBase, vocabulary: int) -> tuple[int, ...]:
    """The token ids that a control may hold, in ascending order.

    Raises:
        UserError: A candidate or forbidden token is outside the vocabulary, the dictionary is missing, or
            nothing is left.
    """
    named = range(vocabulary) if problem.candidates is None else problem.candidates
    chosen = {_inside(token, "candidates", vocabulary) for token in named}
    chosen -= _forbidden(problem.forbidden, tokenizer, vocabulary)
    if problem.controls == "printable":
        chosen = {token for token in chosen if _is_printable(decode([token], tokenizer))}
    elif problem.controls == "words":
        words = _dictionary(problem.dictionary)
        chosen = {token for token in chosen if _is_word(token, tokenizer, words)}
    if not chosen:
        raise UserError(
            "no token is left for the control: forbid fewer tokens, give more candidates, or use another "
            f"kind of controls than {problem.controls!r}"
        )
    return tuple(sorted(chosen))


def _inside(token: int, name: str, vocabulary: int) -> int:
    if not 0 <= token < vocabulary:
        raise UserError(f"{name} holds token {token}, but the vocabulary is 0 to {vocabulary - 1}")
    return int(token)


def _forbidden(
    forbidden: Sequence[int | str], tokenizer: PreTrainedTokenizerBase, vocabulary: int
) -> set[int]:
    if isinstance(forbidden, str):
        raise UserError(f"forbidden is the text {forbidden!r}, but a list is needed: [{forbidden!r}]")
    tokens: set[int] = set()
    for entry in forbidden:
        if isinstance(entry, str):
            tokens.update(tokenizer.encode(entry, add_special_tokens=False))
        else:
            tokens.add(_inside(entry, "forbidden", vocabulary))
    return tokens


def _is_printable(text: str) -> bool:
    """Printable text with no half of a multi-byte character; a space counts."""
    return bool(text) and text.isprintable() and "\ufffd" not in text


def _is_word(token: int, tokenizer: PreTrainedTokenizerBase, words: Collection[str]) -> bool:
    piece = str(tokenizer.convert_ids_to_tokens(token))
    text = decode([token], tokenizer).strip()
    return piece.startswith(_WORD_STARTS) and text.isalpha() and text.lower() in words


def _dictionary(words: Collection[str] | None) -> Collection[str]:
    if words is not None:
        return words if isinstance(words, (set, frozenset)) else frozenset(words)
    if not _SYSTEM_DICTIONARY.is_file():
        raise UserError(
            "controls 'words' needs a word list, and this system has none: give `dictionary`, or install one "
            f"as {_SYSTEM_DICTIONARY} (the package wamerican on Debian)"
        )
    lines = _SYSTEM_DICTIONARY.read_text(encoding="utf-8", errors="ignore").splitlines()
    return frozenset(word.strip().lower() for word in lines if word.strip())

"""How prompts show items: title and description, shortened to fit on a line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from llmctl.msr import prompts


@dataclass(frozen=True)
class Wording:
    """The text of each item in prompts."""

    titles: Mapping[str, str]
    descriptions: Mapping[str, str] = field(default_factory=dict)  # by item; items may be missing
    title_chars: int = prompts.TITLE_CHARS  # most characters of a title
    text_chars: int = prompts.TEXT_CHARS  # most characters of a description

    def line(self, item: str) -> str:
        """An item's title and description on one line."""
        return self._line(item, self.descriptions.get(item, ""))

    def title(self, item: str) -> str:
        """An item's title on one line."""
        return self._line(item, "")

    def _line(self, item: str, description: str) -> str:
        return prompts.item_line(self.titles[item], description, self.title_chars, self.text_chars)

    def list(self, items: Sequence[str]) -> str:
        """One line per item."""
        return prompts.item_list([self.line(item) for item in items])

"""Every prompt of the method, in one place; recipes may give others.

After the three roles of MLLM-MSR (arXiv 2408.09698, section 4): a description of an item's picture, a
summary of a user's preferences, and a question that is answered by yes or no. The candidate comes last, so
that all that a user's candidates have in common stands before it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

ITEM = (
    "Describe the item in the picture in one paragraph: what it is, its colours, its patterns and objects, "
    "and any text in it."
)
FIRST_BLOCK = (
    "A user chose these items, the oldest first:\n{items}\n\n"
    "Summarize in a few sentences what this user likes."
)
NEXT_BLOCK = (
    "So far, a user's preferences were summarized like this:\n{summary}\n\n"
    "Since then the user chose these items, the oldest first:\n{items}\n\n"
    "Write a new summary in a few sentences of what this user likes now. Newer choices count more."
)
RECOMMEND = (
    "You recommend items. Here is what is known of a user's preferences:\n{preferences}\n\n"
    "Will the user choose this item next?\n{candidate}\n\nAnswer yes or no."
)
YES, NO = "yes", "no"  # the replies that are trained on

TITLE_CHARS, TEXT_CHARS = 200, 1200  # of an item in a prompt at most, unless a recipe says otherwise


def fill(template: str, fields: Mapping[str, str]) -> str:
    """A template with its fields filled in; braces in titles and texts mean nothing."""
    parts, rest = [], template
    while rest:
        found = [(rest.find(f"{{{name}}}"), name) for name in fields if f"{{{name}}}" in rest]
        if not found:
            break
        place, name = min(found)
        parts += [rest[:place], fields[name]]
        rest = rest[place + len(name) + 2 :]
    return "".join([*parts, rest])


def item_line(
    title: str, text: str = "", title_chars: int = TITLE_CHARS, text_chars: int = TEXT_CHARS
) -> str:
    """An item in words, on one line; what is longer than allowed ends in an ellipsis."""
    name = _shorten(title, title_chars) or "(no title)"
    said = _shorten(text, text_chars)
    return f"{name}: {said}" if said else name


def item_list(lines: Sequence[str]) -> str:
    """Items, one a line."""
    return "\n".join(f"- {line}" for line in lines)


def _shorten(text: str, limit: int) -> str:
    one_line = " ".join(text.split())
    return one_line if len(one_line) <= limit else one_line[: limit - 3].rstrip() + "..."

"""Reports: the same sections as `report.md` and as one `report.html` that needs no other file.

The page makes no network requests (its content policy forbids them), embeds its plots, is readable on a
phone, and follows the light or dark mode of the reader.
"""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmctl.runs.files import disk_errors_as_user_errors
from llmctl.runs.run import Run
from llmctl.runs.tables import Table, escape_markdown

if TYPE_CHECKING:
    from matplotlib.figure import Figure as MatplotlibFigure

MEDIA_TYPES = {".png": "image/png", ".svg": "image/svg+xml"}


@dataclass(frozen=True)
class Figure:
    """A plot that `save_figure` wrote, and its caption."""

    path: Path  # PNG or SVG inside the run folder
    caption: str = ""


@dataclass(frozen=True)
class Verbatim:
    """Text that is shown unformatted, such as a prompt or the reply of a model."""

    text: str
    caption: str = ""


Part = str | Table | Figure | Verbatim  # str is Markdown


@dataclass(frozen=True)
class Section:
    """A heading and its parts. HTML and images in Markdown parts are shown as text."""

    title: str
    parts: Sequence[Part] = field(default_factory=tuple)


def write_report(run: Run, title: str, sections: Sequence[Section]) -> Path:
    """Write `report.md` and `report.html` of a run; the environment of the run comes last.

    Args:
        run: The run, open.
        title: The heading of the page.
        sections: The sections, in order.

    Returns:
        The HTML file.

    Raises:
        UserError: A plot cannot be read, or the disk refused.
    """
    whole = [*sections, _provenance(run)]
    run.write_text("report.md", render_markdown(title, whole, run.folder))
    return run.write_text("report.html", render_html(title, whole))


def render_markdown(title: str, sections: Sequence[Section], folder: Path) -> str:
    """Render the report as Markdown; plots are linked relative to `folder`."""
    blocks = [f"# {escape_markdown(title)}"]
    for section in sections:
        blocks.append(f"## {escape_markdown(section.title)}")
        blocks += [_part_to_markdown(part, folder) for part in section.parts]
    return "\n\n".join(blocks) + "\n"


def render_html(title: str, sections: Sequence[Section]) -> str:
    """Render the report as one HTML page; text is escaped, and Markdown parts may not contain HTML."""
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = environment.from_string(Path(__file__).with_name("report.html.j2").read_text(encoding="utf-8"))
    rendered = [
        # Markup: these come from our own renderers, which escape what they are given.
        {"title": section.title, "parts": [Markup(_part_to_html(part)) for part in section.parts]}
        for section in sections
    ]
    return template.render(title=title, sections=rendered) + "\n"


def new_figure(width: float = 6.4, height: float = 4.0) -> MatplotlibFigure:
    """Make an empty Matplotlib figure that needs no window system.

    Args:
        width: Width in inches.
        height: Height in inches.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as MatplotlibFigure

    figure = MatplotlibFigure(figsize=(width, height), dpi=160, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save_figure(figure: MatplotlibFigure, run: Run, name: str, caption: str = "") -> Figure:
    """Write a figure to `figures/<name>.png`; the same plot gives the same bytes.

    Args:
        figure: A figure, e.g. from `new_figure`.
        run: The run, open.
        name: Name of the file, without its suffix.
        caption: What the plot shows, for the report and for readers who cannot see it.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    data = io.BytesIO()
    # Through Agg whatever the canvas; without metadata, which would name the library's version.
    FigureCanvasAgg(figure).print_png(data, metadata={"Software": None})
    return Figure(run.write_bytes(f"figures/{name}.png", data.getvalue()), caption)


def _provenance(run: Run) -> Section:
    """The environment of the run, from its manifest."""
    manifest = run.manifest
    facts: dict[str, Any] = {
        "command": ", ".join(manifest["commands"]),
        "seed": manifest["seed"],
        **{key: _as_text(value) for key, value in manifest["notes"].items()},
        "llmctl": manifest["llmctl"],
        "git commit": manifest["git_commit"],
        "packages": _as_text(manifest["packages"]),
        "python": f"{manifest['python']} on {manifest['platform']}, {manifest['cpu_count']} CPUs",
        "changed during the run": ", ".join(manifest["changes"]) or None,
    }
    rows = [[key, value] for key, value in facts.items() if value is not None]
    return Section(
        "How this was made", [Table(["what", "value"], [[key, str(value)] for key, value in rows])]
    )


def _as_text(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {item}" for key, item in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _part_to_markdown(part: Part, folder: Path) -> str:
    if isinstance(part, Table):
        return part.to_markdown()
    if isinstance(part, Figure):
        place = part.path.relative_to(folder).as_posix()
        caption = escape_markdown(part.caption)
        return f"![{caption}](<{place}>)" + (f"\n\n*{caption}*" if caption else "")
    if isinstance(part, Verbatim):
        longest = max((len(ticks) for ticks in re.findall("`+", part.text)), default=0)
        fence = "`" * max(3, longest + 1)
        caption = f"*{escape_markdown(part.caption)}*\n\n" if part.caption else ""
        return f"{caption}{fence}text\n{part.text}\n{fence}"
    return part


def _part_to_html(part: Part) -> str:
    from markupsafe import escape

    if isinstance(part, Table):
        return part.to_html()
    caption = (
        ""
        if isinstance(part, str) or not part.caption
        else f"<figcaption>{escape(part.caption)}</figcaption>"
    )
    if isinstance(part, Figure):
        return (
            f'<figure class="picture"><img alt="{escape(part.caption)}" src="{_data_uri(part.path)}">'
            f"{caption}</figure>"
        )
    if isinstance(part, Verbatim):
        return f"<figure>{caption}<pre>{escape(part.text)}</pre></figure>"
    return _render_text(part)


def _data_uri(path: Path) -> str:
    media_type = MEDIA_TYPES.get(path.suffix.lower())
    if media_type is None:
        raise ValueError(f"{path} is no figure: {' or '.join(MEDIA_TYPES)} is needed")
    with disk_errors_as_user_errors(f"read {path}"):
        data = path.read_bytes()
    return f"data:{media_type};base64,{base64.b64encode(data).decode()}"


def _render_text(text: str) -> str:
    """Render Markdown as HTML: raw HTML is shown as text, and images, which need the network, do not load."""
    from markdown_it import MarkdownIt

    rendered: str = MarkdownIt("commonmark", {"html": False}).enable("table").disable("image").render(text)
    return rendered

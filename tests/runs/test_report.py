import io
import re
from html.parser import HTMLParser

import pytest
from rich.console import Console

from llmctl.errors import UserError
from llmctl.runs.recipe import Recipe
from llmctl.runs.report import Figure, Section, Verbatim, new_figure, save_figure, write_report
from llmctl.runs.run import Run
from llmctl.runs.stats import Estimate, wilson
from llmctl.runs.tables import Table, escape_markdown, format_cell

NASTY = '<script>alert("1")</script> | `x` *y* [z](http://evil.example/) & ![i](http://evil.example/i.png)'


class Page(HTMLParser):
    """Tags, text and addresses of a page."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.addresses, self.words = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.addresses += [value for name, value in attributes if name in ("src", "href", "srcset", "data")]

    def handle_data(self, data):
        self.words.append(data)

    @property
    def text(self):
        return "".join(self.words)


@pytest.fixture
def run(tmp_path):
    with Run.open(tmp_path / "run", Recipe(), "demo run") as run:
        yield run


def draw():
    figure = new_figure()
    axes = figure.add_subplot()
    axes.plot([1, 2, 3], [0.2, 0.5, 0.4])
    axes.set_xlabel("turn")
    return figure


def make(run):
    run.note(model="smollm2-135m", fingerprint="abc")
    table = Table(
        ["task", "right", "n"], [["sums", wilson(5, 10), 12345], [NASTY, None, 3]], caption="How <often>"
    )
    return write_report(
        run,
        "A run & more",
        [
            Section("Result", ["It **improved**.\n\n- one\n- two", table]),
            Section("Curve", [save_figure(draw(), run, "curve", "Right answers <by turn>")]),
            Section("Replies", [Verbatim("a ``` fence\n" + NASTY, caption="What it said"), NASTY]),
        ],
    )


def test_the_page_stands_alone_and_shows_all_text_as_text(run):
    text = make(run).read_text(encoding="utf-8")
    page = Page(text)
    assert "script" not in page.tags and "link" not in page.tags
    assert page.tags.count("img") == 1
    pictures = [address for address in page.addresses if address.startswith("data:image/png;base64,")]
    assert len(pictures) == 1
    assert set(page.addresses) - set(pictures) == {
        "http://evil.example/",
        "http://evil.example/i.png",
    }  # links
    assert "default-src 'none'" in text and "prefers-color-scheme: dark" in text
    assert 'name="viewport"' in text
    for words in (
        "A run & more",
        '<script>alert("1")</script>',
        "How <often>",
        "0.500 [0.237, 0.763], n = 10",
    ):
        assert words in page.text
    assert page.tags.count("table") == 2 and page.tags.count("strong") == 1


def test_the_markdown_holds_the_same_and_links_the_figure(run):
    make(run)
    text = (run.folder / "report.md").read_text(encoding="utf-8")
    assert text.startswith("# A run \\& more\n\n## Result\n\nIt **improved**.")
    assert "![Right answers \\<by turn\\>](<figures/curve.png>)" in text
    assert "| sums | 0.500 \\[0.237, 0.763\\], n = 10 | 12,345 |" in text
    assert "````text\na ``` fence\n" in text
    assert "| seed |" not in text  # this recipe has none
    assert "| command | demo run |" in text and "| fingerprint | abc |" in text


def test_the_markdown_table_shows_nasty_text_as_text(run):
    from markdown_it import MarkdownIt

    html = (
        MarkdownIt("commonmark", {"html": True})
        .enable("table")
        .render(Table(["x"], [[NASTY], ["snake_case _under_ a\nb"]]).to_markdown())
    )
    page = Page(html)
    assert page.addresses == [] and set(page.tags) == {"table", "thead", "tbody", "tr", "th", "td"}
    assert NASTY in page.text and "snake_case _under_ a b" in page.text


def test_the_same_report_has_the_same_bytes(run):
    make(run)
    before = {path.name: path.read_bytes() for path in run.folder.rglob("*.*") if path.is_file()}
    make(run)
    assert {path.name: path.read_bytes() for path in run.folder.rglob("*.*") if path.is_file()} == before


def test_a_figure_of_another_kind_or_one_that_is_gone_is_refused(run):
    with pytest.raises(ValueError, match=r"is no figure: .png or .svg is needed"):
        write_report(run, "x", [Section("y", [Figure(run.folder / "a.gif")])])
    with pytest.raises(UserError, match="cannot read .*gone.png"):
        write_report(run, "x", [Section("y", [Figure(run.folder / "gone.png")])])


def test_a_vector_figure_is_embedded_as_an_image(run):
    path = run.write_text("figures/a.svg", "<svg xmlns='http://www.w3.org/2000/svg'/>")
    text = write_report(run, "x", [Section("y", [Figure(path)])]).read_text(encoding="utf-8")
    assert Page(text).addresses[0].startswith("data:image/svg+xml;base64,")


def test_a_ragged_table_is_refused():
    with pytest.raises(ValueError, match="row 1 has 1 cells, but there are 2 columns"):
        Table(["a", "b"], [[1, 2], [3]])


def test_numbers_stand_to_the_right():
    table = Table(["name", "n", "share"], [["a", 1, None], ["b", 2, 0.123456]])
    assert table.to_markdown().splitlines()[1] == "| --- | ---: | ---: |"
    assert '<td class="number">0.1235</td>' in table.to_html()


def test_a_table_on_a_terminal_shows_brackets_as_they_are():
    stream = io.StringIO()
    Console(file=stream, width=80).print(Table(["[bold]x"], [["[red]y[/red]"]], caption="[dim]z").to_rich())
    for words in ("[bold]x", "[red]y[/red]", "[dim]z"):
        assert words in stream.getvalue()


@pytest.mark.parametrize(
    ("cell", "text"),
    [(None, "–"), (True, "yes"), (3, "3"), (12345, "12,345"), (0.1 + 0.2, "0.3"), (1e-7, "1e-07"), ("x", "x"),
     (Estimate(None, None, None, 0), "no value, n = 0")],
)  # fmt: skip
def test_cells_as_text(cell, text):
    assert format_cell(cell) == text


def test_words_with_underscores_are_left_readable():
    assert escape_markdown("chain_sum _a_") == r"chain_sum \_a\_"


def test_a_picture_is_of_the_asked_size_without_a_version_in_it(run):
    data = save_figure(draw(), run, "curve").path.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n" and b"Matplotlib" not in data
    width, height = int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")
    assert re.fullmatch(r"1\.6\d*", f"{width / height:.3f}")

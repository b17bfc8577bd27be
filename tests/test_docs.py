"""The documentation holds: short README, links that resolve, commands that exist, plain and portable text."""

import os
import re
import shlex
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer

from llmctl.cli.app import app

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
PAGES = sorted([README, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").rglob("*.md")])
NAMES = [page.relative_to(ROOT).as_posix() for page in PAGES]

LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)|src=\"([^\"]+)\"")
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"(?<!`)`(llmctl [^`\n]+)`(?!`)")
# What would tie a page to one machine or one mirror: folders of a build, registries, addresses of a cluster.
NOT_PORTABLE = re.compile(
    r"/(?:work|tmp|root|home|mnt)/|[\w-]+\.(?:internal|local|corp)\b|(?:pypi|files\.pythonhosted)\.org|--index-url"
)


def text_of(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def prose(text: str) -> str:
    """A page without its fenced blocks."""
    return FENCE.sub("", text)


def anchors(text: str) -> set[str]:
    """The anchors that GitHub and mkdocs make of a page's headings."""
    heads = re.findall(r"^#+ (.+)$", prose(text), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", head.lower()).strip().replace(" ", "-") for head in heads}


def command_lines(text: str) -> list[str]:
    """Every quoted line that starts with `llmctl`, continued lines joined and comments dropped."""
    found = [line for line in INLINE.findall(prose(text)) if "|" not in line and "..." not in line]
    for language, block in FENCE.findall(text):
        if language in ("", "bash", "console", "sh"):
            joined = block.replace("\\\n", " ")
            found += [line.removeprefix("$ ").strip() for line in joined.splitlines()]
    return [line for line in found if line.startswith("llmctl ")]


@cache
def root_command() -> Any:
    return typer.main.get_command(app)


def problem_with(line: str) -> str | None:
    """Why a command line does not parse (no such command, option or argument); None if it does."""
    words = shlex.split(line, comments=True)[1:]
    command: Any = root_command()
    context = command.make_context("llmctl", [], resilient_parsing=True)
    while hasattr(command, "get_command") and words and not words[0].startswith("-"):
        inner = command.get_command(context, words[0])
        if inner is None:
            return f"{words[0]!r} is no command of {command.name}"
        command, words = inner, words[1:]
        context = command.make_context(command.name, [], resilient_parsing=True, parent=context)
    if not words:
        return None  # a command that is only named
    try:
        # parse_args reads the options and arguments; it runs nothing.
        command.make_context(command.name, words, parent=context.parent)
    except typer.Exit:
        return None  # --help and --version
    except Exception as error:
        return f"{type(error).__name__}: {getattr(error, 'message', error)}"
    return None


def test_the_readme_is_under_150_lines():
    assert len(README.read_text(encoding="utf-8").splitlines()) < 150


def test_the_readme_shows_both_commands_and_a_picture_on_its_first_screen():
    first = "\n".join(README.read_text(encoding="utf-8").splitlines()[:24])
    assert "make rise-train" in first and "make test" in first and "docs/img/" in first


@pytest.mark.parametrize("name", NAMES)
def test_relative_links_resolve(name):
    page = ROOT / name
    missing = []
    for target in (a or b for a, b in LINK.findall(prose(text_of(name)))):
        if "://" in target or target.startswith("mailto:"):
            continue
        path, _, anchor = target.partition("#")
        other = page if not path else (page.parent / path).resolve()
        known = other.exists() and other.is_relative_to(ROOT)
        if not known or (anchor and anchor not in anchors(other.read_text(encoding="utf-8"))):
            missing.append(target)
    assert missing == []


@pytest.mark.parametrize("name", NAMES)
def test_quoted_commands_parse(name):
    wrong = {line: why for line in command_lines(text_of(name)) if (why := problem_with(line))}
    assert wrong == {}


def test_commands_are_found_in_blocks_and_in_sentences():
    page = "Say `llmctl doctor`.\n\n```\nllmctl reach solve \\\n    --k 2  # short\nmake test\n```\n"
    assert command_lines(page) == ["llmctl doctor", "llmctl reach solve      --k 2  # short"]


def test_a_command_or_option_that_does_not_exist_is_found():
    assert "no command" in str(problem_with("llmctl reach sove --k 2"))
    assert "no such option" in str(problem_with("llmctl reach solve --kay 2")).lower()
    assert problem_with("llmctl reach curve reach/demo --set search.max_k=2 --dry-run") is None


@pytest.mark.parametrize("name", NAMES)
def test_recipes_and_jobs_that_are_quoted_exist(name):
    missing = []
    for line in command_lines(text_of(name)):
        for word in shlex.split(line, comments=True):
            if re.fullmatch(r"(rise|reach|gin|msr|sft)/[\w.-]+", word):
                missing += [word] if not (ROOT / "recipes" / f"{word}.yaml").is_file() else []
            elif re.fullmatch(r"(eval/jobs|recipes)/[\w./-]+\.yaml", word):
                missing += [word] if not (ROOT / word).is_file() else []
    assert missing == []


@pytest.mark.parametrize("name", NAMES)
def test_files_that_are_named_exist(name):
    named = re.findall(r"`((?:llmctl|tests|eval|recipes|docs)/[\w./-]*(?:\.\w+|/))`", text_of(name))
    assert [path for path in named if not (ROOT / path).exists()] == []


@pytest.mark.parametrize("name", NAMES)
def test_pages_are_plain_and_portable(name):
    text = text_of(name)
    assert re.findall(r"\bcan not\b", text, re.IGNORECASE) == []
    assert NOT_PORTABLE.findall(text) == []


def test_every_page_of_docs_is_linked_from_somewhere():
    linked = {
        (page.parent / (a or b).partition("#")[0]).resolve()
        for page in PAGES
        for a, b in LINK.findall(page.read_text(encoding="utf-8"))
        if "://" not in (a or b)
    }
    unlinked = [page for page in (ROOT / "docs").rglob("*.md") if page not in linked]
    assert unlinked == []


def test_make_targets_that_are_quoted_exist():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    quoted = set()
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        quoted |= set(re.findall(r"`make ([a-z-]+)", prose(text)))
        quoted |= {
            found for _, block in FENCE.findall(text) for found in re.findall(r"^make ([a-z-]+)", block, re.M)
        }
    assert quoted <= targets, quoted - targets


def install_entry_points(folder: Path) -> None:
    """Do what `pip install` does with the entry points of the package in a folder."""
    project = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    info = folder / f"{project['name']}-{project['version']}.dist-info"
    info.mkdir()
    metadata = f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    (info / "METADATA").write_text(metadata, encoding="utf-8")
    groups = [
        f"[{group}]\n" + "".join(f"{name} = {value}\n" for name, value in entries.items())
        for group, entries in project["entry-points"].items()
    ]
    (info / "entry_points.txt").write_text("\n".join(groups), encoding="utf-8")


@pytest.mark.parametrize("name", [n for n in NAMES if n.startswith("docs/examples/")])
def test_the_example_and_its_own_test_run(name, tmp_path):
    titled = r'^```(?:python|toml) title="([\w.]+)"\n(.*?)^```'
    files = re.findall(titled, text_of(name), re.MULTILINE | re.DOTALL)
    assert any(file.startswith("test_") for file, _ in files)
    assert len(text_of(name).splitlines()) < 100
    for file, code in files:
        (tmp_path / file).write_text(code, encoding="utf-8")
    install_entry_points(tmp_path)
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-c",
        os.devnull,
        "--rootdir",
        ".",
    ]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=250)
    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_pictures_are_cited():
    text = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    pictures = [path.name for path in (ROOT / "docs" / "img").glob("*.png")]
    assert [name for name in pictures if name not in text] == []

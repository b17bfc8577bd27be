"""A run that is removed, replaced or unreadable is a 404 with one sentence in every view."""

import os
import shutil
from pathlib import Path

import pytest

from llmctl.explorer.files import library
from llmctl.explorer.files.pair_index import PairIndex

VIEWS = {
    "curve": ("curve", "metrics.json"),
    "pairs": ("curve", "pairs.jsonl"),
    "set": ("set", "metrics.json"),
    "rise": ("rise", "journal/evaluate-0.jsonl"),
    "episode": ("rise", "journal/evaluate-0.jsonl"),
}


@pytest.fixture(params=VIEWS)
def view(request, runs):
    """A view and a copy of a run that it can show; the copy is gone after the test."""
    source, file = VIEWS[request.param]
    folder = runs / "vanishing"
    shutil.copytree(runs / source, folder)
    yield request.param, folder, file
    if folder.is_dir():
        shutil.rmtree(folder)
    else:
        folder.unlink(missing_ok=True)


def ask(client, name):
    query = {"stage": 0, "problem": "any"} if name == "episode" else {}
    return client.get(f"/api/{name}", params={"run": "vanishing", **query})


def is_clear(answer):
    sentence = answer.json()["error"]
    return answer.status_code == 404 and "vanishing" in sentence and "\n" not in sentence


def test_a_run_that_is_removed_after_it_was_shown_is_not_found(client, view):
    name, folder, _ = view
    ask(client, name)
    shutil.rmtree(folder)
    assert is_clear(ask(client, name))


def test_a_run_that_a_file_took_the_place_of_is_not_found(client, view):
    name, folder, _ = view
    shutil.rmtree(folder)
    folder.write_text("no folder")
    assert is_clear(ask(client, name))


def test_a_file_that_a_folder_took_the_place_of_is_not_found(client, view):
    name, folder, file = view
    (folder / file).unlink()
    (folder / file).mkdir()
    assert ask(client, name).status_code == 404


def test_a_run_that_vanishes_between_the_check_and_the_reading_is_not_found(client, view, monkeypatch):
    name, folder, file = view
    found = library.Library._file

    def check_then_remove(self, run, wanted):
        path = found(self, run, wanted)
        if wanted == file:
            shutil.rmtree(folder)
        return path

    monkeypatch.setattr(library.Library, "_file", check_then_remove)
    answer = ask(client, name)
    assert is_clear(answer) and "no longer in the runs folder" in answer.json()["error"]


def test_a_run_that_cannot_be_read_says_why(client, view, monkeypatch):
    name, _, file = view
    os_open, real_open = os.open, open

    def is_locked(path):
        return str(path).endswith(f"vanishing/{file}")

    def refuse(path):
        if is_locked(path):
            raise PermissionError(13, "Permission denied")

    def locked_open(path, *arguments, **options):
        refuse(path)
        return real_open(path, *arguments, **options)

    monkeypatch.setattr("builtins.open", locked_open)
    monkeypatch.setattr(Path, "open", lambda path, *a, **o: locked_open(path, *a, **o))
    monkeypatch.setattr("os.open", lambda path, *a, **o: refuse(path) or os_open(path, *a, **o))
    answer = ask(client, name)
    assert is_clear(answer) and "Permission denied" in answer.json()["error"]


def test_pairs_that_vanish_between_two_pages_are_not_found(client, runs, monkeypatch):
    folder = runs / "vanishing"
    shutil.copytree(runs / "curve", folder)
    page = PairIndex.page

    def remove_then_read(self, *arguments):
        shutil.rmtree(folder)
        return page(self, *arguments)

    monkeypatch.setattr(PairIndex, "page", remove_then_read)
    assert client.get("/api/pairs", params={"run": "vanishing", "k": 0}).status_code == 404

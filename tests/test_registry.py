"""Extension points: names without imports, other packages' entries, errors that say what to do."""

import sys

import pytest

from llmctl.errors import UserError
from llmctl.registry import Registry


def make(group: str = "llmctl.test_things") -> Registry[object]:
    return Registry("thing", group, {"path": "pathlib:Path", "broken": "no_such_module:X"})


@pytest.fixture()
def package(tmp_path, monkeypatch):
    """An installed package with three entry points, one of them broken, one that hides a built-in."""
    info = tmp_path / "guest-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: guest\nVersion: 1.0\n")
    lines = ["[llmctl.test_things]", "mine = guest_things:THING", "bad = guest_things:MISSING"]
    (info / "entry_points.txt").write_text("\n".join([*lines, "path = guest_things:THING"]) + "\n")
    (tmp_path / "guest_things.py").write_text("THING = 'a thing'\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    sys.modules.pop("guest_things", None)


def test_names_are_listed_in_order_and_import_nothing(package):
    assert list(make()) == ["path", "broken", "mine", "bad"]
    assert "guest_things" not in sys.modules


def test_an_entry_is_imported_when_it_is_asked_for(package):
    from pathlib import Path

    things = make()
    assert things["path"] is Path
    assert things["mine"] == "a thing"


def test_another_package_cannot_replace_a_built_in_entry(package, caplog):
    things = make()
    assert list(things).count("path") == 1
    assert things["path"] != "a thing"
    assert "'path' is there already" in caplog.text


def test_a_broken_package_is_named(package):
    with pytest.raises(UserError, match="'bad' of the package guest cannot be imported"):
        make()["bad"]


def test_an_unknown_name_is_told_the_nearest_and_all():
    with pytest.raises(UserError, match=r"no thing 'pth'; the nearest is 'path': known are path, broken"):
        make()["pth"]


def test_an_entry_of_this_process_is_kept_and_may_not_be_doubled():
    things = make()
    things.add("own", 1)
    assert things["own"] == 1
    with pytest.raises(UserError, match="there is a thing 'own' already"):
        things.add("own", 2)

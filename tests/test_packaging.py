"""The wheel, as a user installs it: its own files, and recipes that work from an empty folder."""

import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel of this tree; hatchling is asked in this process's environment, so nothing is downloaded."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "--wheel-dir", str(folder), str(ROOT)], check=True, capture_output=True)
    (found,) = folder.glob("llmctl_toolkit-*.whl")
    return found


@pytest.fixture(scope="module")
def command(wheel, tmp_path_factory):
    """The command `llmctl` of a new virtual environment that has the wheel, and borrows its dependencies."""
    home = tmp_path_factory.mktemp("environment")
    venv.create(home, with_pip=True)
    python = home / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", "--no-deps", wheel], check=True)
    (packages,) = home.glob("lib/python*/site-packages")
    # A path alone: the .pth files of the borrowed folder are not read, among them this tree's own.
    (packages / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return home / "bin" / "llmctl"


def run(command, folder, *arguments):
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run([command, *arguments], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_the_wheel_holds_the_package_its_recipes_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert "llmctl/_recipes/rise/smoke.yaml" in names
    assert "llmctl/explorer/static/app.js" in names
    assert {name.split("/")[0].split("-")[0] for name in names} == {"llmctl", "llmctl_toolkit"}


@pytest.mark.slow
def test_an_installed_command_runs_a_recipe_by_name_from_an_empty_folder(command, tmp_path):
    assert "rise" in run(command, tmp_path, "--help")
    assert "model: smollm2-135m" in run(command, tmp_path, "rise", "run", "rise/smoke", "--dry-run")
    assert list(tmp_path.iterdir()) == []

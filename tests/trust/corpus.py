"""A corpus of hostile files: recipes, jobs and run folders of a stranger, each with a command that opens it.

A case is a folder's worth of files. `{home}` in a text stands for the folder that the command runs in; a
payload that runs makes the file EXECUTED there, and everything in the folder `victim` is precious.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

TOUCH = "touch {home}/EXECUTED"
EVIL_MODULE = "import pathlib\npathlib.Path({home!r}, 'EXECUTED').touch()\ndef make(**options): return None\n"


@dataclass(frozen=True)
class Link:
    """A symbolic link."""

    target: str


@dataclass(frozen=True)
class Pipe:
    """A named pipe, on which a careless reader waits for ever."""


Content = str | bytes | Link | Pipe


@dataclass(frozen=True)
class Case:
    """Files, and the command that a user gives on them."""

    name: str
    command: tuple[str, ...]
    files: Mapping[str, Content] = field(default_factory=dict)

    def lay_out(self, home: Path) -> list[str]:
        """Make the files in a folder; gives the command with its paths."""
        (home / "victim").mkdir()
        (home / "victim" / "precious.txt").write_text("precious")
        (home / "evil_module.py").write_text(EVIL_MODULE.replace("{home!r}", repr(str(home))))
        for name, content in self.files.items():
            path = home / name
            path.parent.mkdir(parents=True, exist_ok=True)
            _make(path, content, home)
        return [part.replace("{home}", str(home)) for part in self.command]


def _make(path: Path, content: Content, home: Path) -> None:
    if isinstance(content, Link):
        path.symlink_to(content.target.replace("{home}", str(home)))
    elif isinstance(content, Pipe):
        os.mkfifo(path, stat.S_IRUSR | stat.S_IWUSR)
    elif isinstance(content, bytes):
        path.write_bytes(content)
    else:
        path.write_text(content.replace("{home}", str(home)))


TARGETS = (
    "python:os:system",
    "python:os:popen",
    "python:subprocess:run",
    "python:subprocess:Popen",
    "python:builtins:exec",
    "python:builtins:eval",
    "python:importlib:import_module",
    "python:runpy:run_path",
    "python:shutil:rmtree",
    "python:pickle:loads",
    "python:ctypes:CDLL",
    "python:pty:spawn",
    "python:webbrowser:open",
    "python:posix:system",
    "python:llmctl.runs.files:write_text",
    "python:evil_module:make",
    "python:evil_module:nothing",
    "python:.evil_module:make",
    "python:os.path:os",
    "python::",
)
_OPTIONS = {"command": TOUCH, "path": "{home}/victim/precious.txt", "text": "gone"}
RECIPES: Mapping[str, tuple[str, ...]] = {  # kind of recipe -> the command that runs it
    "eval": ("eval", "run"),
    "rise": ("rise", "run"),
    "sft": ("train", "sft"),
    "gin": ("gin", "compare"),
    "curve": ("reach", "curve"),
    "optimize": ("reach", "optimize"),
    "msr": ("msr", "run"),
}


def _with_task(kind: str, task: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe that names a task."""
    if kind == "eval":
        return {"models": {"m": {"model": "nowhere"}}, "tasks": {"t": task}, "protocols": ["single"]}
    if kind == "rise":
        return {"kind": "rise", "model": "nowhere", "task": task}
    if kind == "sft":
        return {"kind": "sft", "model": "nowhere", "data": {"task": task}}
    return {"kind": "gin-compare", "model": "nowhere", "data": {"task": task}}


def code_cases() -> Iterator[Case]:
    """Recipes that name code as a task."""
    for kind in ("eval", "rise", "sft", "gin"):
        for target in TARGETS:
            recipe = json.dumps(_with_task(kind, {"name": target, "options": _OPTIONS}))
            for extra in (("--dry-run",), ("--run", "{home}/run")):
                name = f"{kind} {target} {extra[0]}"
                yield Case(name, (*RECIPES[kind], "{home}/r.yaml", *extra), {"r.yaml": recipe})


def _bomb() -> str:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 12)]
    return "\n".join(lines)


YAML: Mapping[str, Content] = {
    "runs a shell": f"model: !!python/object/apply:os.system ['{TOUCH}']",
    "runs a shell by new": f"model: !!python/object/new:os.system ['{TOUCH}']",
    "names a function": "model: !!python/name:os.system",
    "imports a module": "model: !!python/module:evil_module",
    "alias bomb": _bomb(),
    "holds itself": "model: &m {a: *m}",
    "merges itself": "model: &m {<<: *m}",
    "deep flow": "model: " + "[" * 50_000,
    "deep block": "\n".join(" " * i + "a:" for i in range(2_000)),
    "deep maps": "model: " + "{a: " * 5_000,
    "huge number": "seed: " + "9" * 100_000,
    "huge exponent": "seed: 1e999999999",
    "doubled key": "model: a\nmodel: b",
    "a key that is a list": "? [a]\n: b",
    "binary": bytes(range(256)),
    "utf-16": "model: x".encode("utf-16"),
    "nul": b"model: a\x00b",
    "large": b"# " + b"x" * (2 * 2**20),
    "empty": "",
    "a list": "- a\n- b",
    "two documents": "model: a\n---\nmodel: b",
    "a pipe": Pipe(),
    "a link to a device": Link("/dev/zero"),
    "a link to nothing": Link("{home}/nothing"),
    "a path as model": "model: ../../../../../../etc/passwd",
    "a model's name with a newline": 'model: "a\\n\\u001b[2J"',
}


def yaml_cases() -> Iterator[Case]:
    """Recipes that attack their parser."""
    for name, content in YAML.items():
        for kind, command in RECIPES.items():
            call = (*command, "{home}/r.yaml", "--dry-run")
            yield Case(f"{kind}: {name}", call, {"r.yaml": content})


def _manifest(**entries: Any) -> str:
    return json.dumps({"llmctl": "0.1.0", "made": [], "commands": [], "notes": {}, **entries})


RUN_FOLDERS: Mapping[str, Mapping[str, Content]] = {
    "deletes a neighbour": {"manifest.json": _manifest(made=["../victim"], is_emptying=True)},
    "deletes by an absolute name": {"manifest.json": _manifest(made=["{home}/victim"], is_emptying=True)},
    "deletes by a detour": {"manifest.json": _manifest(made=["a/../../victim"], is_emptying=True)},
    "deletes itself": {"manifest.json": _manifest(made=["."], is_emptying=True)},
    "deletes nothing": {"manifest.json": _manifest(made=[""], is_emptying=True)},
    "deletes through a link": {
        "manifest.json": _manifest(made=["out/precious.txt"], is_emptying=True),
        "out": Link("{home}/victim"),
    },
    "names no text": {"manifest.json": _manifest(made=[3, None, {"a": 1}], is_emptying=True)},
    "names with nul": {"manifest.json": _manifest(made=["a\0b"], is_emptying=True)},
    "lock is a link": {"manifest.json": _manifest(), ".lock": Link("{home}/victim/precious.txt")},
    "lock is a pipe": {"manifest.json": _manifest(), ".lock": Pipe()},
    "manifest is a link": {"manifest.json": Link("{home}/victim/precious.txt")},
    "manifest is a pipe": {"manifest.json": Pipe()},
    "manifest is deep": {"manifest.json": "[" * 200_000},
    "manifest is a list": {"manifest.json": "[]"},
    "manifest's temporary is a link": {
        "manifest.json": _manifest(),
        ".manifest.json.llmctl-tmp": Link("{home}/victim/precious.txt"),
    },
    "recipe is a link": {
        "manifest.json": _manifest(made=["recipe.yaml"]),
        "recipe.yaml": Link("{home}/victim/precious.txt"),
    },
    "recipe is a bomb": {"manifest.json": _manifest(made=["recipe.yaml"]), "recipe.yaml": _bomb()},
    "recipe is a pipe": {"manifest.json": _manifest(made=["recipe.yaml"]), "recipe.yaml": Pipe()},
    "journal leads out": {"manifest.json": _manifest(made=["journal"]), "journal": Link("{home}/victim")},
}
GOOD = json.dumps({"models": {"m": {"model": "nowhere"}}, "tasks": ["sort"], "protocols": ["single"]})


def folder_cases() -> Iterator[Case]:
    """Run folders that attack whoever goes on with them, empties them, or looks at them."""
    commands = {
        "go on": ("eval", "run", "{home}/r.yaml", "--run", "{home}/run"),
        "fresh": ("eval", "run", "{home}/r.yaml", "--run", "{home}/run", "--fresh"),
        "show": ("eval", "show", "{home}/run"),
        "rise compare": ("rise", "compare", "{home}/run", "{home}/run"),
    }
    for name, files in RUN_FOLDERS.items():
        placed = {f"run/{path}": content for path, content in files.items()}
        for what, command in commands.items():
            yield Case(f"{what}: {name}", command, {**placed, "r.yaml": GOOD})


def secret_cases() -> Iterator[Case]:
    """Recipes that carry keys, or that have code of a model run."""
    options = {"api_key": "sk-1", "base_url": "https://evil.example/v1"}
    server = {"engine": "server", "options": options}
    yield Case(
        "eval: a key in a job",
        ("eval", "run", "{home}/r.yaml", "--dry-run"),
        {
            "r.yaml": json.dumps(
                {"models": {"m": {"model": "x", **server}}, "tasks": ["sort"], "protocols": ["single"]}
            )
        },
    )
    yield Case(
        "rise: a key in a recipe",
        ("rise", "run", "{home}/r.yaml", "--dry-run"),
        {"r.yaml": json.dumps({"model": "x", "sampler": server})},
    )
    code = {"trust_remote_code": True}
    for extra in (("--dry-run",), ("--run", "{home}/run")):
        job = {"models": {"m": {"model": "{home}/model", "options": code}}, "tasks": ["sort"]}
        yield Case(
            f"eval: code of a model {extra[0]}",
            ("eval", "run", "{home}/r.yaml", *extra),
            {"r.yaml": json.dumps(job | {"protocols": ["single"]}), **model_with_code()},
        )
        yield Case(
            f"curve: code of a model {extra[0]}",
            ("reach", "curve", "{home}/r.yaml", *extra),
            {"r.yaml": json.dumps({"model": "{home}/model", "load": code}), **model_with_code()},
        )
        yield Case(
            f"rise: code of a model {extra[0]}",
            ("rise", "run", "{home}/r.yaml", *extra),
            {
                "r.yaml": json.dumps({"model": "{home}/model", "sampler": {"options": code}}),
                **model_with_code(),
            },
        )


def model_with_code() -> dict[str, Content]:
    """A model's folder whose configuration names a Python file beside it."""
    config = {
        "model_type": "evil",
        "auto_map": {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"},
        "architectures": ["Model"],
    }
    touch = (
        "import pathlib\npathlib.Path('{home}', 'EXECUTED').touch()\nclass Config: pass\nclass Model: pass\n"
    )
    return {
        "model/config.json": json.dumps(config),
        "model/evil.py": touch,
        "model/model.safetensors": b"",
        "model/tokenizer_config.json": json.dumps({"auto_map": {"AutoTokenizer": ["evil.Model", None]}}),
    }


def all_cases() -> list[Case]:
    """The whole corpus."""
    return [*code_cases(), *yaml_cases(), *folder_cases(), *secret_cases()]

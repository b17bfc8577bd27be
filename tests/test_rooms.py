"""The arrows between rooms: one way, from the command line down to the ground, and no circle of modules."""

import ast
from pathlib import Path

import llmctl

ROOT = Path(llmctl.__file__).parent
# From the ground up. A room imports itself and rooms of lower floors, and no other room of its own floor.
FLOORS = (
    ("errors",),
    ("lazy", "messages", "pictures", "registry", "trust"),
    ("gin", "runs"),
    ("models", "tasks"),
    ("sampling", "training"),
    ("reach", "rise", "msr"),
    ("demo", "studies", "audit"),
    ("jobs", "serve", "explorer"),
    ("cli",),
)
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
MOST_FILES = 24  # in one folder: about 20, and some room


def modules() -> dict[str, Path]:
    """Every module of the package by its dotted name."""
    names = {}
    for path in ROOT.rglob("*.py"):
        parts = path.relative_to(ROOT.parent).with_suffix("").parts
        names[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return names


def imports(path: Path, known: set[str]) -> set[str]:
    """The package's modules that a file imports, also inside functions, but not for type checkers alone."""
    tree = ast.parse(path.read_text())
    skipped = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        for inner in ast.walk(node)
    }
    found = set()
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "llmctl":
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                found.add(whole if whole in known else node.module)
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name in known}
    return found


def graph() -> dict[str, set[str]]:
    """What each module imports."""
    known = modules()
    return {name: imports(path, set(known)) - {name} for name, path in known.items()}


def room(name: str) -> str | None:
    parts = name.split(".")
    return parts[1] if len(parts) > 1 and parts[1] != "__main__" else None


def test_every_room_has_a_floor():
    assert {room(name) for name in modules()} - {None} <= set(FLOOR)


def test_no_import_goes_up_or_to_another_room_of_the_same_floor():
    wrong = [
        f"{name} -> {other}"
        for name, others in graph().items()
        for other in others
        if (a := room(name)) and (b := room(other)) and a != b and FLOOR[b] >= FLOOR[a]
    ]
    assert wrong == []


def test_no_circle_of_modules():
    packages = {name for name, path in modules().items() if path.name == "__init__.py"}
    edges = {name: others - packages for name, others in graph().items()}
    done: set[str] = set()

    def walk(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, " -> ".join((*path[path.index(name) :], name))
        if name not in done:
            for other in sorted(edges[name]):
                walk(other, (*path, name))
            done.add(name)

    for name in sorted(edges):
        walk(name, ())


def test_no_folder_is_flat():
    counts = {folder: len(list(folder.glob("*.py"))) for folder in [ROOT, *ROOT.rglob("*/")]}
    assert {folder: count for folder, count in counts.items() if count > MOST_FILES} == {}

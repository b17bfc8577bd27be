"""`llmctl tasks`: list the verifiable tasks, and show their problems."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from llmctl.cli.options import AllowCodeOption, JsonOption
from llmctl.errors import UserError

app = typer.Typer(no_args_is_help=True, help="List the verifiable tasks, or show some of their problems.")


@app.command("list", help="List the available tasks.")
def list_(as_json: JsonOption = False) -> None:
    """Print names, descriptions and requirements."""
    from llmctl.cli.output import print_json, print_table
    from llmctl.runs.tables import Table
    from llmctl.tasks import list_tasks

    tasks = list_tasks()
    if as_json:
        fields = ("name", "description", "needs", "splits")
        print_json([{field: getattr(task, field) for field in fields} for task in tasks])
        return
    rows = [[task.name, task.description, _words(task.needs), _words(task.splits)] for task in tasks]
    print_table(Table(["task", "description", "needs", "splits"], rows))


@app.command(help="Show some problems of a task: the prompt that a model reads, and the answer.")
def show(
    name: Annotated[
        str, typer.Argument(help="Name of the task, as in `llmctl tasks list`.", show_default=False)
    ],
    path: Annotated[
        Path | None, typer.Option("--path", help="File of problems, for tasks that read one.")
    ] = None,
    split: Annotated[str, typer.Option("--split", help="Split of the data.")] = "train",
    limit: Annotated[int, typer.Option("--limit", min=1, help="Number of problems to show.")] = 3,
    seed: Annotated[
        int, typer.Option("--seed", help="Seed for the order of the problems, and for generated problems.")
    ] = 0,
    sets: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="OPTION=VALUE", help="Set an option of the task. Can be repeated."),
    ] = None,
    as_json: JsonOption = False,
    allow_code: AllowCodeOption = False,
) -> None:
    """Print problems, each with its conversation."""
    from llmctl.cli.options import parse_options
    from llmctl.cli.output import print_json, print_text
    from llmctl.tasks import get_task

    options = parse_options(sets)
    if clash := {"name", "path"} & set(options):
        raise UserError(f"--set {clash.pop()}=... is not an option of a task: give it as NAME or --path")
    task = get_task(name, path=path, **options)
    problems = list(task.problems(split=split, limit=limit, seed=seed))
    if as_json:
        print_json(
            [
                {
                    "id": problem.id,
                    "prompt": problem.prompt,
                    "answer": problem.answer,
                    "solution": problem.solution,
                    "meta": dict(problem.meta),
                    "conversation": [dict(message) for message in task.conversation(problem)],
                }
                for problem in problems
            ]
        )
        return
    for number, problem in enumerate(problems):
        print_text(f"{'' if number == 0 else chr(10)}== {problem.id}")
        for message in task.conversation(problem):
            print_text(f"[{message['role']}] {content_as_text(message)}")
        print_text(f"[answer] {problem.answer}")


def content_as_text(message: Mapping[str, Any]) -> str:
    """The text of a message; other parts, such as images, are named by their type."""
    content = message["content"]
    if isinstance(content, str):
        return content
    return " ".join(
        part["text"] if part.get("type") == "text" else f"<{part.get('type')}>" for part in content
    )


def _words(value: Any) -> str:
    """A string or a list of strings as the cell of a table."""
    return value if isinstance(value, str) else ", ".join(map(str, value or ()))

"""The root of the command line: groups load when they are called, and a user error is one line.

A group is a module `llmctl/cli/<name>.py` with a Typer `app`. It may import only light modules at its top,
because `llmctl --help` loads every group. A group that is missing or cannot be imported does not affect the
others.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

import llmctl
from llmctl.cli import failures
from llmctl.errors import UserError
from llmctl.trust.permissions import Permissions, permissions

GROUPS: dict[str, str] = {  # command -> module:attribute
    "doctor": "llmctl.cli.doctor:app",
    "models": "llmctl.cli.models:app",
    "tasks": "llmctl.cli.tasks:app",
    "sample": "llmctl.cli.sample:app",
    "reach": "llmctl.cli.reach:app",
    "rise": "llmctl.cli.rise:app",
    "gin": "llmctl.cli.gin:app",
    "msr": "llmctl.cli.msr:app",
    "train": "llmctl.cli.train:app",
    "eval": "llmctl.cli.eval:app",
    "compare": "llmctl.cli.compare:app",
    "explore": "llmctl.cli.explore:app",
}

# The classes of usage errors are not public in Typer, which has moved them before: take them by descent.
UsageError: Any = typer.BadParameter.__mro__[1]


class RootGroup(TyperGroup):
    """Commands from `GROUPS`, and the one place where errors become lines and exit codes."""

    def list_commands(self, ctx: typer.Context) -> list[str]:  # type: ignore[override]
        """The names of the groups that exist."""
        return [name for name, target in GROUPS.items() if _is_there(target)]

    def get_command(self, ctx: typer.Context, cmd_name: str) -> Any:  # type: ignore[override]
        """Load a group; a group that cannot be imported reports the reason when it is called."""
        target = GROUPS.get(cmd_name)
        if target is None or not _is_there(target):
            return None
        module, _, attribute = target.partition(":")
        try:
            app = getattr(importlib.import_module(module), attribute)
        except Exception as error:  # whatever it is, the user sees it below
            app = _broken(cmd_name, error)
        command = typer.main.get_command(app)
        command.name = cmd_name
        return command

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:  # type: ignore[override]
        """Accept `--debug` anywhere on the line, since users append it to a command that has just failed."""
        options = args[: args.index("--")] if "--" in args else args
        if "--debug" in options:
            args = ["--debug", *(arg for arg in options if arg != "--debug"), *args[len(options) :]]
        return super().parse_args(ctx, args)

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run and exit; a usage error is one line as well."""
        before = permissions()
        Permissions().adopt()  # the command line alone decides what its command may do
        try:
            code = super().main(*args, **{**kwargs, "standalone_mode": False})
        except UsageError as error:
            code = failures.MISTAKE
            if type(error).__name__ == "NoArgsIsHelpError":
                error.show()
            else:
                path = error.ctx.command_path if error.ctx is not None else "llmctl"
                failures.say(f"error: {' '.join(error.format_message().split())}; see {path} --help")
        except typer.Abort:
            code = failures.FAILED
            failures.say("aborted")
        finally:
            before.adopt()
        sys.exit(code if isinstance(code, int) else 0)

    def invoke(self, ctx: typer.Context) -> Any:  # type: ignore[override]
        """Run the command; an error that was raised on purpose becomes one line and an exit code."""
        try:
            super().invoke(ctx)
            sys.stdout.flush()  # here, where a reader that went away is still noticed
        except BaseException as error:
            if not failures.is_foreseen(error):
                raise
            raise typer.Exit(failures.report(error, bool(ctx.params.get("debug")))) from None


def _show_version(is_asked: bool) -> None:
    if is_asked:
        typer.echo(f"llmctl {llmctl.__version__}")
        raise typer.Exit


app = typer.Typer(
    cls=RootGroup,
    no_args_is_help=False,
    invoke_without_command=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback(help="Steer language models, and teach them to correct their own answers.")
def root(
    ctx: typer.Context,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback when a command fails.")] = False,
    version: Annotated[
        bool,
        typer.Option("--version", help="Show the version and exit.", is_eager=True, callback=_show_version),
    ] = False,
) -> None:
    """Show the help when no command is given."""
    if ctx.invoked_subcommand is None:
        typer.echo(ctx.get_help())


def _is_there(target: str) -> bool:
    return importlib.util.find_spec(target.partition(":")[0]) is not None


def _broken(name: str, error: Exception) -> typer.Typer:
    """A command that stands in for a group that cannot be imported."""
    stub = typer.Typer()
    reason = f"{type(error).__name__}: {error}"

    @stub.command(
        help=f"(cannot be imported: {' '.join(reason.split())})",
        context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
    )
    def _(ctx: typer.Context) -> None:
        raise UserError(f"llmctl {name} cannot be imported ({reason}): repair the installation") from error

    return stub

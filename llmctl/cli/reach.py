"""`llmctl reach`: which outputs can a prompt of at most k tokens force, and with which prompt?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llmctl.cli import reach_curve
from llmctl.cli.options import AllowCodeOption, JsonOption
from llmctl.cli.reach_options import (
    AdapterOption,
    ControlsOption,
    DeviceOption,
    DictionaryOption,
    DtypeOption,
    ForbidOption,
    ModelOption,
    PositionOption,
    QuantizationOption,
    RoundtripOption,
    SampleOption,
    SeedOption,
    StateIdsOption,
    StateOption,
    TrustOption,
    make_problem,
    open_model,
)

if TYPE_CHECKING:
    from llmctl.reach.result import Result
    from llmctl.reach.search.prepare import Plan

app = typer.Typer(
    no_args_is_help=True,
    help="Find out which outputs a short control prompt can force, and with which prompt.",
)
reach_curve.register(app)


@app.command(
    help="Search the shortest control prompt that makes a model emit a target, and show the search path."
)
def solve(
    target: Annotated[
        str, typer.Option(help='Text that the model should emit; mind the leading space: " Paris".')
    ] = "",
    state: StateOption = "",
    target_ids: Annotated[
        str, typer.Option(help='Token ids of the target instead of its text, e.g. "260 1842".')
    ] = "",
    state_ids: StateIdsOption = "",
    k: Annotated[int, typer.Option("--k", help="Maximum number of control tokens.")] = 4,
    method: Annotated[
        str,
        typer.Option(help="Search method: default, published, scan, greedy, copying, gcg, beam or random."),
    ] = "default",
    effort: Annotated[
        float, typer.Option(help="Multiply the number of steps of the default method by this.")
    ] = 1.0,
    certify: Annotated[
        bool,
        typer.Option(
            "--certify",
            help="With --k 1: try every token, which proves that an unreached target is unreachable.",
        ),
    ] = False,
    model: ModelOption = "smollm2-135m",
    adapter: AdapterOption = None,
    device: DeviceOption = "auto",
    dtype: DtypeOption = "auto",
    quantization: QuantizationOption = "none",
    trust_remote_code: TrustOption = False,
    allow_code: AllowCodeOption = False,
    position: PositionOption = "before",
    controls: ControlsOption = "any",
    dictionary: DictionaryOption = None,
    forbid: ForbidOption = None,
    sample_controls: SampleOption = 0,
    must_roundtrip: RoundtripOption = False,
    seed: SeedOption = 0,
    as_json: JsonOption = False,
) -> None:
    """Search one problem and print the whole path."""
    plan = _plan(method, k, effort, certify, seed)
    loaded = open_model(model, adapter, device, dtype, quantization, trust_remote_code)
    problem = make_problem(
        loaded,
        (state, state_ids),
        (target, target_ids),
        position=position,
        controls=controls,
        dictionary=dictionary,
        forbid=forbid,
        sample=sample_controls,
        must_roundtrip=must_roundtrip,
        seed=seed,
    )
    result = _search(loaded, problem, plan, k, quiet=as_json)
    if as_json:
        from llmctl.cli.output import print_json

        print_json(result.to_dict())
    else:
        _print_result(result, loaded.tokenizer)
    if result.error:
        raise typer.Exit(1)


def _plan(method: str, k: int, effort: float, certify: bool, seed: int) -> Plan:
    """The schedule that the options describe."""
    from llmctl.errors import UserError
    from llmctl.reach.curves.plan import search_plan
    from llmctl.reach.curves.recipe import CurveSearchSettings
    from llmctl.reach.search import schedule as schedules
    from llmctl.reach.search.methods.registry import METHODS

    if k < 1:
        raise UserError(f"--k is {k}, but a control needs at least 1 token: give --k 1 or more")
    if not effort > 0:
        raise UserError(f"--effort is {effort}, but it must be above 0")
    if certify and k != 1:
        raise UserError(f"--certify is given and --k is {k}, but only k = 1 can be exhausted: give --k 1")
    if method == "published":
        ks = tuple(length for length in (1, 2, 3, 4, 6, 8, 10) if length <= k)
        return schedules.published(tuple(i for i in ks if i <= 3), tuple(i for i in ks if i > 3), seed=seed)
    known = schedules.schedule_names()
    if method not in known:
        raise UserError(f"--method is {method!r}, but it must be one of {', '.join(known)}")
    if method in METHODS and (limit := METHODS[method].max_k) is not None and k > limit:
        raise UserError(
            f"--method {method} exhausts k = {limit}, but --k is {k}: give --k {limit}, or use greedy"
        )
    settings = CurveSearchSettings(schedule=method, max_k=k, effort=effort, seed=seed)
    return search_plan(settings, certify=certify)


def _search(loaded: Any, problem: Any, plan: Plan, k: int, *, quiet: bool) -> Result:
    """Search, with progress after every step."""
    from llmctl.reach import solve_steps
    from llmctl.reach.result import Result
    from llmctl.runs import progress

    events = solve_steps(loaded.model, loaded.tokenizer, problem, plan, k)
    with progress(None, "solve", "forward tokens", quiet=quiet) as bar:
        for event in events:
            if isinstance(event, Result):
                return event
            bar.advance(
                event.forward_tokens - bar.done, note=f"{event.method} k={event.k} loss {event.loss:.2f}"
            )
    raise RuntimeError("the search ended without a result")


def _print_result(result: Result, tokenizer: Any) -> None:
    """Print the path, the verdict in a sentence, and notes on it."""
    from llmctl.cli.output import print_table, print_text
    from llmctl.reach.describe import notes, path_table, verdict

    print_table(path_table(result, tokenizer))
    print_text(verdict(result))
    for note in notes(result, tokenizer):
        print_text(f"- {note}")


@app.command(
    "set", help="Compute the reachable set of a state: exact for k = 1, a lower bound for longer controls."
)
def reachable(
    state: StateOption = "",
    state_ids: StateIdsOption = "",
    k: Annotated[int, typer.Option("--k", help="Maximum number of control tokens.")] = 1,
    forwards: Annotated[int, typer.Option(help="Number of controls to score beyond k = 1.")] = 4096,
    strategy: Annotated[
        str, typer.Option(help="Which controls to extend by a token: push, pull, alternate or random.")
    ] = "alternate",
    top: Annotated[int, typer.Option(help="Number of reached tokens to print; --json prints all.")] = 20,
    folder: Annotated[
        Path | None,
        typer.Option(
            "--run",
            metavar="DIR",
            help="Folder that keeps the set, its plots and a report; an interrupted run continues.",
        ),
    ] = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Delete the earlier results in the folder and start over.")
    ] = False,
    model: ModelOption = "smollm2-135m",
    adapter: AdapterOption = None,
    device: DeviceOption = "auto",
    dtype: DtypeOption = "auto",
    quantization: QuantizationOption = "none",
    trust_remote_code: TrustOption = False,
    allow_code: AllowCodeOption = False,
    position: PositionOption = "before",
    controls: ControlsOption = "any",
    dictionary: DictionaryOption = None,
    forbid: ForbidOption = None,
    sample_controls: SampleOption = 0,
    must_roundtrip: RoundtripOption = False,
    seed: SeedOption = 0,
    as_json: JsonOption = False,
) -> None:
    """Print every token that some control makes the model emit, each with a witness."""
    from llmctl.cli.output import print_json, print_shown
    from llmctl.cli.run_command import Start, carry_out
    from llmctl.reach.reachable_sets.recipe import SetRecipe
    from llmctl.reach.reachable_sets.spec import set_spec, show_found
    from llmctl.runs.recipe import parse_recipe

    content = {
        "model": model,
        "adapter": adapter,
        "load": {
            "device": device,
            "dtype": dtype,
            "quantization": quantization,
            "trust_remote_code": trust_remote_code,
        },
        "state": state,
        "state_ids": _ids_or_none(state_ids, "--state-ids"),
        "k": k,
        "exploration": {"forwards": forwards, "strategy": strategy},
        "controls": {
            "position": position,
            "tokens": controls,
            "dictionary": dictionary,
            "forbidden": tuple(forbid or ()),
            "sample": sample_controls,
            "must_roundtrip": must_roundtrip,
        },
        "seed": seed,
    }
    recipe = parse_recipe(SetRecipe, content, "the options")
    if folder is not None:
        start = Start("reach/set", folder, as_json=as_json, fresh=fresh)
        carry_out("reach set", set_spec(top), start, recipe)
        return
    from llmctl.reach.reachable_sets.run import find_set

    found = find_set(recipe, None, quiet=as_json)
    if as_json:
        print_json(found)
    else:
        print_shown(show_found(found, top))


@app.command(help="Compute the self-attention bound of each head: the smallest k that it does not rule out.")
def bound(
    state: StateOption = "",
    state_ids: StateIdsOption = "",
    relative: Annotated[
        float,
        typer.Option(
            help="Norm of the desired part orthogonal to the head's output, as a multiple of its norm."
        ),
    ] = 1.0,
    top: Annotated[
        int, typer.Option(help="Number of heads to print, the hardest to control first; --json prints all.")
    ] = 12,
    out: Annotated[Path | None, typer.Option(help="File for a heat map (PNG).")] = None,
    model: ModelOption = "smollm2-135m",
    adapter: AdapterOption = None,
    device: DeviceOption = "auto",
    dtype: DtypeOption = "auto",
    trust_remote_code: TrustOption = False,
    allow_code: AllowCodeOption = False,
    position: PositionOption = "before",
    as_json: JsonOption = False,
) -> None:
    """Apply the bound to each head alone; it does not bound the model as a whole."""
    from llmctl.cli.output import print_json, print_table, print_text
    from llmctl.reach import attention_bound
    from llmctl.reach.describe import bound_sentence, bound_table

    loaded = open_model(model, adapter, device, dtype, "none", trust_remote_code)
    problem = make_problem(loaded, (state, state_ids), None, position=position)
    report = attention_bound(loaded.model, loaded.tokenizer, problem, relative=relative).to_dict()
    if out is not None:
        from llmctl.reach.curves.plots import draw_bound
        from llmctl.runs.files import disk_errors_as_user_errors

        with disk_errors_as_user_errors(f"write {out}"):
            draw_bound(report).savefig(out)
    if as_json:
        print_json(report)
        return
    print_table(bound_table(report, top))
    print_text(bound_sentence(report))


def _ids_or_none(text: str, name: str) -> tuple[int, ...] | None:
    from llmctl.reach.parse_inputs import read_ids

    return read_ids(text, name) if text else None

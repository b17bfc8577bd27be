"""Options that the reach commands on single states share, and how they become a model and a problem."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from llmctl.models.loading import Loaded
    from llmctl.reach.problem import Problem

StateOption = Annotated[
    str,
    typer.Option("--state", help="Text of the state; with --position template, a JSON conversation."),
]
StateIdsOption = Annotated[
    str, typer.Option("--state-ids", help='Token ids of the state instead of its text, e.g. "1504 314".')
]
ModelOption = Annotated[str, typer.Option(help="Alias, folder or Hub name of the model.")]
AdapterOption = Annotated[Path | None, typer.Option(help="Folder of a PEFT adapter to load on the model.")]
DeviceOption = Annotated[str, typer.Option(help="Device of the model: auto, cpu, cuda, ...")]
DtypeOption = Annotated[
    str, typer.Option(help="Data type of the weights: auto, float32, bfloat16 or float16.")
]
QuantizationOption = Annotated[str, typer.Option(help="Quantization of the weights: none, nf4 or int8.")]
TrustOption = Annotated[
    bool,
    typer.Option(
        "--trust-remote-code", help="Use the model code that comes with the weights; needs --allow-code too."
    ),
]
PositionOption = Annotated[
    str,
    typer.Option(
        help="Position of the control: before or after the state, or in the chat template: system, "
        "user_start, user_end, reply_start, template."
    ),
]
ControlsOption = Annotated[
    str, typer.Option(help="Tokens that a control may use: any, printable or words (of a dictionary).")
]
DictionaryOption = Annotated[
    Path | None, typer.Option(help="File with one word per line, for --controls words.")
]
ForbidOption = Annotated[
    list[str] | None, typer.Option(help="Text whose tokens no control may contain. Can be repeated.")
]
SampleOption = Annotated[
    int,
    typer.Option(help="Use only this many of the allowed tokens, drawn with --seed; 0 uses all."),
]
RoundtripOption = Annotated[
    bool,
    typer.Option("--must-roundtrip", help="Use only controls whose text encodes to the same tokens again."),
]
SeedOption = Annotated[int, typer.Option(help="Seed for everything that is drawn.")]


def open_model(
    model: str, adapter: Path | None, device: str, dtype: str, quantization: str, trust: bool
) -> Loaded:
    """Load the model that the options describe."""
    from llmctl.models.loading import load

    return load(
        model,
        adapter=adapter,
        device=device,
        dtype=dtype,
        quantization=quantization,
        trust_remote_code=trust,
    )


def make_problem(
    loaded: Loaded,
    state: tuple[str, str],
    target: tuple[str, str] | None,
    *,
    position: str,
    controls: str = "any",
    dictionary: Path | None = None,
    forbid: list[str] | None = None,
    sample: int = 0,
    must_roundtrip: bool = False,
    seed: int = 0,
) -> Problem:
    """Make a problem from options.

    Args:
        loaded: The model; controls are made of its tokens.
        state: Text and ids; exactly one is not empty.
        target: Likewise; None makes a problem without a target.
        position: As `Problem`.
        controls: As `Problem`.
        dictionary: File of words.
        forbid: As `Problem`.
        sample: Number of allowed tokens to draw; 0 takes all.
        must_roundtrip: As `Problem`.
        seed: Seed for the draw.

    Raises:
        UserError: The state or the target is missing or given twice, or an option is wrong.
    """
    from dataclasses import replace

    from llmctl.reach.curves.plan import problem_template
    from llmctl.reach.curves.recipe import CurveControlSettings
    from llmctl.reach.parse_inputs import one_of, read_state
    from llmctl.reach.scoring.scorer import check_model, vocabulary_of
    from llmctl.runs.recipe import parse_recipe

    content = {
        "position": position,
        "tokens": controls,
        "dictionary": dictionary,
        "forbidden": tuple(forbid or ()),
        "sample": sample,
        "must_roundtrip": must_roundtrip,
    }
    settings = parse_recipe(CurveControlSettings, content, "the options")
    check_model(loaded.model)
    template = problem_template(settings, seed, loaded.tokenizer, vocabulary_of(loaded.model))
    what: dict[str, Any] = {"state": read_state(*state, position)}
    if target is not None:
        what["target"] = one_of(*target, "--target")
    return replace(template, **what)

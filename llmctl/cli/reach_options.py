"""Options that the reach commands on single states share, and what is made of them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from llmctl.models.loading import Loaded
    from llmctl.reach.problem import Problem

StateOption = Annotated[
    str,
    typer.Option("--state", help="What the model reads; with --position template a JSON conversation."),
]
StateIdsOption = Annotated[
    str, typer.Option("--state-ids", help='Token ids in place of a text, e.g. "1504 314".')
]
ModelOption = Annotated[str, typer.Option(help="A short name, a folder or a Hub name.")]
AdapterOption = Annotated[Path | None, typer.Option(help="A folder with a PEFT adapter.")]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu, cuda, ...")]
DtypeOption = Annotated[str, typer.Option(help="auto, float32, bfloat16 or float16.")]
QuantizationOption = Annotated[str, typer.Option(help="none, nf4 or int8.")]
TrustOption = Annotated[
    bool, typer.Option("--trust-remote-code", help="Run model code that comes with the weights.")
]
PositionOption = Annotated[
    str,
    typer.Option(
        help="before or after the state; or in the chat template: system, user_start, user_end, reply_start, "
        "template."
    ),
]
ControlsOption = Annotated[str, typer.Option(help="any token, printable ones, or dictionary words.")]
DictionaryOption = Annotated[
    Path | None, typer.Option(help="A file of words, one a line, for --controls words.")
]
ForbidOption = Annotated[
    list[str] | None, typer.Option(help="A text whose tokens no control may hold; may be repeated.")
]
SampleOption = Annotated[
    int,
    typer.Option(help="Controls hold only that many of the allowed tokens, drawn by --seed; 0 is no limit."),
]
RoundtripOption = Annotated[
    bool, typer.Option("--must-roundtrip", help="Only prompts that survive decoding and encoding.")
]
SeedOption = Annotated[int, typer.Option(help="Of everything that is drawn.")]


def open_model(
    model: str, adapter: Path | None, device: str, dtype: str, quantization: str, trust: bool
) -> Loaded:
    """Load a model as the options say."""
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
    """A problem from options.

    Args:
        loaded: The model, whose tokens the controls are drawn from.
        state: Text and ids; one of them is given.
        target: Likewise; None where none is asked for.
        position: As `Problem`.
        controls: As `Problem`.
        dictionary: A file of words.
        forbid: As `Problem`.
        sample: Draw that many of the allowed tokens; 0 takes all.
        must_roundtrip: As `Problem`.
        seed: Of the draw.

    Raises:
        UserError: State or target are missing or given twice, or an option is wrong.
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

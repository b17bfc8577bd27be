"""The report of `llmctl reach optimize`: what the control is worth on pairs that played no part in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from llmctl.reach.universal.recipe import OptimizeRecipe
from llmctl.reach.universal.result import UniversalStep
from llmctl.runs import Estimate, Run, Section, Table, Verbatim, new_figure, save_figure, write_report
from llmctl.runs.tables import escape_markdown

NO_CONTROL, RANDOM, CONTROL = "no control", "random controls of the same length", "control"
SPLITS = {"train": "train", "held_out": "held out"}
_COLOURS = ("#1f6fb4", "#d1495b")


def write_optimize_report(
    run: Run,
    recipe: OptimizeRecipe,
    metrics: Mapping[str, Any],
    paths: Mapping[str, Sequence[UniversalStep]],
) -> None:
    """Write report.md and report.html, with the figure."""
    control = metrics["control"]
    caption = "Best loss on the judging training pairs by tokens through the model, forward and backward."
    sections = [
        Section(
            "The control",
            [
                Verbatim(control["text"], f"{control['k']} tokens, ids {control['ids']}"),
                # Escaped, since they quote controls written by hand.
                *(escape_markdown(sentence) for sentence in sentences(recipe, metrics)),
            ],
        ),
        Section("Scores", [score_table(recipe, metrics), gain_table(metrics)]),
        Section("What each token is worth", [token_table(metrics)]),
        Section("The search", [save_figure(draw_search(paths), run, "search", caption), cost_table(metrics)]),
    ]
    write_report(run, f"One control for {metrics['data']['train']} pairs with {recipe.model}", sections)


def sentences(recipe: OptimizeRecipe, metrics: Mapping[str, Any]) -> list[str]:
    """What the scores show, in sentences."""
    said = []
    for name, by_split in metrics["gain"].items():
        if "held_out" in by_split:
            said.append(_verdict(name, by_split["held_out"]["loss"]))
    if not metrics["data"]["held_out"]:
        said.append("No pairs were held out, so nothing is known about other pairs than those of the search.")
    control = metrics["control"]
    if control["k"] < recipe.control.k:
        said.append(f"No control of {recipe.control.k} tokens was better than this one of {control['k']}.")
    for split, same in control["roundtrips"].items():
        if same.value < 1:
            text, ids = control["match_as_text"][split], metrics["scores"][CONTROL][split]["match"]
            said.append(
                f"As text the control is another one: {round((1 - same.value) * same.n)} of {same.n} "
                f"{SPLITS[split]} prompts change when they are decoded and encoded again; answers emitted "
                f"then: {text.format()}, with the ids: {ids.format()}."
            )
    if all(same.value == 1 for same in control["roundtrips"].values()):
        said.append("All prompts with the control keep their ids when they are written out as text.")
    if (repeats := metrics["data"]["repeats"]) > 0:
        said.append(f"{repeats} rows were left out, because their question repeats an earlier one.")
    return said


def _verdict(name: str, gain: Estimate) -> str:
    if gain.low is None or gain.high is None:
        return f"Against {name}: {gain.format()}; too few held-out pairs for an interval."
    words = "has a loss that cannot be told from that of"
    if gain.low > 0:
        words = "has a lower loss than"
    elif gain.high < 0:
        words = "has a higher loss than"
    return f"On held-out pairs the control {words} {name}; nats saved per answer token: {gain.format()}."


def score_table(recipe: OptimizeRecipe, metrics: Mapping[str, Any]) -> Table:
    """Loss and exact match of everything that was scored, on both sets."""
    splits = list(metrics["scores"][CONTROL])
    columns = ["", *(f"{what}, {SPLITS[split]}" for split in splits for what in ("loss", "exact match"))]
    rows = []
    for name, by_split in metrics["scores"].items():
        label = f"{name} (search {recipe.search.method})" if name == CONTROL else name
        cells = [_short(by_split[split][what]) for split in splits for what in ("loss", "match")]
        rows.append([label, *cells])
    counts = ", ".join(f"n = {metrics['data'][split]} {SPLITS[split]}" for split in splits)
    return Table(
        columns,
        rows,
        f"Loss in nats per answer token, the mean over pairs; exact match is greedy decoding that emits the "
        f"answer token for token; 95 % intervals over pairs; {counts}; seed {metrics['seed']}.",
    )


def gain_table(metrics: Mapping[str, Any]) -> Table:
    """How much better the control is than everything else, pair by pair."""
    splits = list(metrics["scores"][CONTROL])
    columns = [
        "control against",
        *(f"{what}, {SPLITS[split]}" for split in splits for what in ("loss saved", "matches won")),
    ]
    rows = [
        [name, *(_short(by_split[split][what], "+") for split in splits for what in ("loss", "match"))]
        for name, by_split in metrics["gain"].items()
    ]
    return Table(
        columns, rows, "Differences by paired bootstrap over pairs, positive where the control is better."
    )


def token_table(metrics: Mapping[str, Any]) -> Table:
    """By how much the loss rises when a token of the control is left out."""
    splits = list(metrics["scores"][CONTROL])
    columns = ["place", "token", "id", *(f"loss without it, {SPLITS[split]}" for split in splits)]
    columns += [f"worth, {SPLITS[split]}" for split in splits]
    rows = []
    for place, token in enumerate(metrics["control"]["tokens"], 1):
        without = [token["loss_without"][split] for split in splits]
        worth = [
            f"{loss - metrics['scores'][CONTROL][split]['loss'].value:+.3f}"
            for loss, split in zip(without, splits, strict=True)
        ]
        rows.append([place, repr(token["text"]), str(token["id"]), *(f"{x:.3f}" for x in without), *worth])
    return Table(columns, rows, "Nats per answer token; a token whose worth is negative does harm.")


def cost_table(metrics: Mapping[str, Any]) -> Table:
    """What each search took."""
    columns = [
        "search",
        "steps",
        "loss on judging pairs",
        "sequences",
        "forward tokens",
        "backward tokens",
        "seconds",
    ]
    rows = [
        [
            method,
            cost["steps"],
            cost["loss"],
            cost["forwards"],
            cost["forward_tokens"],
            cost["backward_tokens"],
            round(metrics["seconds"].get(f"search-{method}", 0)),
        ]
        for method, cost in metrics["search"].items()
    ]
    caption = "A baseline goes on until it took as many tokens, forward and backward together, as the search."
    return Table(columns, rows, caption if len(rows) > 1 else "")


def draw_search(paths: Mapping[str, Sequence[UniversalStep]]) -> Any:
    """The best judged loss by tokens, one line per method."""
    figure = new_figure()
    axes = figure.subplots()
    for (method, path), colour in zip(paths.items(), _COLOURS, strict=False):
        points = [(step.tokens, step.loss) for step in path if step.loss is not None]
        places, losses = [tokens for tokens, _ in points], [loss for _, loss in points]
        axes.step(places, losses, where="post", color=colour, label=method)
    axes.set(xlabel="tokens through the model, forward and backward", ylabel="loss on training pairs, nats")
    axes.legend(frameon=False)
    return figure


def _short(metric: Estimate, sign: str = "") -> str:
    if metric.value is None:
        return ""
    form = f"{sign}.3f"
    if metric.low is None or metric.high is None:
        return f"{metric.value:{form}}"
    return f"{metric.value:{form}} [{metric.low:{form}}, {metric.high:{form}}]"

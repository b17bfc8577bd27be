"""`llmctl msr demo`: a synthetic data set to try the recommender on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from llmctl.cli.options import JsonOption

MODEL_HELP = (
    "Train the models of the demo once, a vision-language model and a summarizer, and print their accuracy."
)
HELP = "Make a synthetic data set: a catalogue of images, and simulated users whose preferences drift."


def demo(
    folder: Annotated[
        Path, typer.Argument(metavar="OUT_DIR", help="Folder to write to.", show_default=False)
    ],
    items: Annotated[int, typer.Option(help="Number of items.")] = 384,
    users: Annotated[int, typer.Option(help="Number of users.")] = 300,
    seed: Annotated[int, typer.Option(help="Seed for everything that is drawn.")] = 0,
    as_json: JsonOption = False,
) -> None:
    """Print counts, and the upper bounds: metrics of recommenders that know the true preferences."""
    from llmctl.cli.output import print_json, print_table, print_text
    from llmctl.demo.catalogue import DemoSettings, make_demo
    from llmctl.demo.oracles import draw_lists, measure_oracles, oracle_table

    data = make_demo(folder, DemoSettings(items=items, users=users, seed=seed), quiet=as_json)
    figures = measure_oracles(data, draw_lists(data, seed=seed))
    if as_json:
        print_json(
            {
                "interactions": data.interactions,
                "items": data.items,
                "oracles": {
                    name: {key: e.to_dict() for key, e in one.items()} for name, one in figures.items()
                },
            }
        )
        return
    print_table(oracle_table(figures))
    print_text(f"items:        {len(data.looks)}, with an image each\nusers:        {len(data.users)}")
    print_text(f"interactions: {sum(len(user.items) for user in data.users.values()):,}")
    print_text(
        f"next: llmctl msr prepare --interactions {data.interactions} --items {data.items} "
        "--set filters.item_core=1"
    )


def demo_model(as_json: JsonOption = False) -> None:
    """Train what is missing, which takes minutes on 2 cores, and print the accuracy."""
    from llmctl.cli.output import print_json, print_table, print_text
    from llmctl.demo.measure import accuracy_table, writer_table
    from llmctl.demo.vision import demo_model_report, ensure_demo_model
    from llmctl.demo.writer import demo_writer_report, ensure_demo_writer

    seeing, writing = ensure_demo_model(quiet=as_json), ensure_demo_writer(quiet=as_json)
    seen, written = demo_model_report(seeing), demo_writer_report(writing)
    if as_json:
        print_json({"msr-demo": {"path": seeing, **seen}, "msr-demo-writer": {"path": writing, **written}})
        return
    print_table(accuracy_table(seen))
    for caption, said in seen["examples"].items():
        print_text(f"{caption:<28} {' '.join(said.split())}")
    print_table(writer_table(written))
    for one in written["examples"]:
        print_text("\n".join(f"{kind + ':':<11} {text}" for kind, text in one.items()))
    print_text(f"msr-demo:        {seeing}, trained in {sum(seen['seconds'].values()):.0f} s")
    print_text(f"msr-demo-writer: {writing}, trained in {written['seconds']:.0f} s")

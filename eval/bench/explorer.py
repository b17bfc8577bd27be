"""Seconds until the explorer's page paints, can be used, and shows a curve of 100,000 pairs; beside Gradio.

    python eval/bench/explorer.py --rounds 5

Both servers are started and warm, pages are opened in turns with an empty cache, figures are medians. The
Gradio page has a text box, a button, a plot and a table. The targets are 2 s for the paint and 3 s for the
curve.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
GRADIO = """
import gradio as gr
with gr.Blocks() as page:
    state, go, plot, table = gr.Textbox(label="state"), gr.Button("search"), gr.Plot(), gr.Dataframe()
page.launch(server_name="127.0.0.1", share=False, quiet=True, prevent_thread_lock=True)
print("page:", page.local_url, flush=True)
page.block_thread()
"""


@contextmanager
def server(command: list[str], begin: str) -> Iterator[str]:
    """A process that prints a line with its address; the address."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        for line in process.stdout or ():
            if line.startswith(begin):
                yield line.split()[1].rstrip("/")
                return
        raise SystemExit(f"{command[:3]} did not start")
    finally:
        process.terminate()
        process.wait(30)


def write_curve(folder: Path, pairs: int) -> None:
    """A finished curve of so many pairs, in the form that `llmctl reach curve` leaves."""
    folder.mkdir(parents=True)
    text = " a state of a few words that is as long as those of WikiText excerpts mostly are"
    with (folder / "pairs.jsonl").open("w") as file:
        for number in range(pairs):
            k = number % 5 if number % 5 < 4 else None
            ids = list(range(k or 0))
            pair: dict[str, Any] = {"verdict": "reached" if k is not None else "unknown", "k": k}
            pair |= {"control_ids": ids, "control_text": " x" * len(ids), "control_tokens": [" x"] * len(ids)}
            pair |= {"prompt_text": text, "state_text": text, "state_ids": list(range(32)), "target_ids": [7]}
            pair |= {"target_text": " y", "method": "gcg", "base_rank": 9, "base_loss": 3.5, "loss": 1.5}
            file.write(json.dumps(pair | {"forwards": 99, "roundtrips": True, "id": f"{number}/0"}) + "\n")
    points = {
        str(k): {"value": 0.8 - k / 5, "low": 0.7 - k / 5, "high": 0.9 - k / 5, "n": pairs} for k in range(4)
    }
    (folder / "metrics.json").write_text(json.dumps({"pairs": pairs, "states": pairs, "epsilon": points}))
    (folder / "manifest.json").write_text("{}")
    (folder / "recipe.yaml").write_text("kind: reach-curve\nmodel: smollm2-135m\n")


def open_page(browser: Any, address: str, ready: list[str]) -> dict[str, float]:
    """Seconds until the first paint and until all of `ready` are there, and requests."""
    context = browser.new_context()
    page, requests = context.new_page(), []
    page.on("request", lambda request: requests.append(request.url))
    began = time.perf_counter()
    page.goto(address)
    for selector in ready:
        page.wait_for_selector(selector)
    seconds = time.perf_counter() - began
    paint = page.evaluate("() => performance.getEntriesByName('first-contentful-paint')[0].startTime / 1000")
    page.wait_for_load_state("networkidle")
    context.close()
    return {"paint": paint, "usable": seconds, "requests": len(requests)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--pairs", type=int, default=100_000)
    options = parser.parse_args()
    from playwright.sync_api import sync_playwright

    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        raise SystemExit("no Chromium: install it (on Debian: apt-get install chromium)")
    measured: dict[str, list[dict[str, float]]] = {"explorer": [], "gradio": [], "curve": []}
    with tempfile.TemporaryDirectory() as temporary, sync_playwright() as play:
        runs = Path(temporary)
        write_curve(runs / "big", options.pairs)
        browser = play.chromium.launch(executable_path=found, args=FLAGS)
        explore = [sys.executable, "-u", "-m", "llmctl", "explore", "--port", "0", "--runs", temporary]
        with server(explore, "explorer:") as own:
            open_page(browser, own, [".bars button"])  # the model is loaded afterwards
            if find_spec("gradio") is None:
                print("gradio is not installed: measured without it")
                rival = None
                measure(browser, options.rounds, own, rival, runs, measured)
            else:
                with server([sys.executable, "-c", GRADIO], "page:") as rival:
                    open_page(browser, rival, ["textarea"])
                    measure(browser, options.rounds, own, rival, runs, measured)
        browser.close()
    show(measured, options.pairs)


def measure(
    browser: Any,
    rounds: int,
    own: str,
    rival: str | None,
    runs: Path,
    measured: dict[str, list[dict[str, float]]],
) -> None:
    """Open the pages in turns; each round reads the curve's file afresh."""
    for _ in range(rounds):
        measured["explorer"].append(open_page(browser, own, ["#state"]))
        if rival is not None:
            measured["gradio"].append(open_page(browser, rival, ["textarea"]))
        (runs / "big" / "pairs.jsonl").touch()
        link = f"{own}/#/curve?runs=big&at=big@3@0"
        measured["curve"].append(open_page(browser, link, ["figure svg.chart circle", "#pairs tbody tr"]))


def show(measured: dict[str, list[dict[str, float]]], pairs: int) -> None:
    """Medians, and the ratio to Gradio."""
    medians = {
        name: {key: statistics.median(row[key] for row in rows) for key in rows[0]}
        for name, rows in measured.items()
        if rows
    }
    for name, figures in medians.items():
        label = (
            f"curve of {pairs:,} pairs with its first page of pairs"
            if name == "curve"
            else f"{name}, first view"
        )
        print(
            f"{label}: painted after {figures['paint']:.2f} s, usable after {figures['usable']:.2f} s, "
            f"{figures['requests']:.0f} requests"
        )
    if "gradio" in medians:
        ratio = medians["gradio"]["usable"] / medians["explorer"]["usable"]
        print(f"usable {ratio:.1f} times sooner than Gradio's page")


if __name__ == "__main__":
    main()

"""Take the README's pictures of the explorer: docs/img/explorer-*.png.

    make screenshots            # or: python eval/screenshots.py --runs runs

It starts `llmctl explore` on the embedded model and the runs folder (`make reach-demo` and `make rise-train`
fill it) and drives Chromium through the views. A view whose run is missing is left out, and said.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

LARGEST = 200_000  # bytes of a picture
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
SEARCH = "#/search?m=smollm2-135m&s=The+capital+of+France+is&k=4&b=2000"


def search(page: Any) -> None:
    """Two targets, one search."""
    page.goto(f"{page.base}/{SEARCH}")
    page.wait_for_selector(".bars button", timeout=120_000)
    for target in (" the", " London"):
        page.locator("#target").fill(target)
        page.wait_for_selector("#token-options li")
        page.keyboard.press("Enter")
    page.locator("#start").click()
    page.locator("#search-state", has_text="done").wait_for(timeout=300_000)


def reachable_set(page: Any) -> None:
    """A set explored on the page."""
    page.goto(f"{page.base}/#/set?m=smollm2-135m&s=My+favourite+animal+is+the&k=2&n=1024&f=512")
    page.locator("#explore").click()
    page.locator("#set-state", has_text="done").wait_for(timeout=300_000)


def curve(page: Any) -> None:
    """The first curve of the runs folder, beside published ones."""
    page.goto(f"{page.base}/#/curve")
    page.wait_for_selector("figure svg.chart circle")
    if page.locator("#curve-runs").count() == 0:
        raise LookupError("no curve in the runs folder: make reach-demo")
    page.locator("button.link").first.click()
    page.wait_for_selector("#pairs")


def bound(page: Any) -> None:
    """The map of the embedded model."""
    page.goto(f"{page.base}/#/bound?m=smollm2-135m&s=The+capital+of+France+is&r=1")
    page.wait_for_selector("figure svg.chart rect", timeout=120_000)


def rise(page: Any) -> None:
    """An episode of the first RISE run."""
    page.goto(f"{page.base}/#/rise")
    page.wait_for_selector("#episode, .empty")
    if page.locator("#episode").count() == 0:
        raise LookupError("no RISE run in the runs folder: make rise-train")


VIEWS: dict[str, tuple[Callable[[Any], None], str]] = {
    "search": (search, "light"),
    "set": (reachable_set, "light"),
    "curve": (curve, "light"),
    "bound": (bound, "dark"),
    "rise": (rise, "light"),
}


@contextmanager
def explorer(runs: Path) -> Iterator[str]:
    """`llmctl explore` on a free port; its address."""
    command = [sys.executable, "-u", "-m", "llmctl", "explore", "--port", "0", "--runs", str(runs)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        if process.stdout is None or not (line := process.stdout.readline()).startswith("explorer: "):
            raise SystemExit("the explorer did not start")
        yield line.split()[1]
    finally:
        process.terminate()
        process.wait(20)


def save(picture: bytes, path: Path) -> None:
    """Write a picture, with fewer colours where the limit on its size asks for it."""
    from PIL import Image

    image = Image.open(BytesIO(picture)).convert("RGB")
    for colours in (None, 256, 64):
        shown = image if colours is None else image.quantize(colours, dither=Image.Dither.NONE)
        shown.save(path, optimize=True)
        if path.stat().st_size < LARGEST:
            return
    raise SystemExit(f"{path} has {path.stat().st_size:,} bytes, but a picture may have {LARGEST:,}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--out", type=Path, default=Path("docs/img"))
    parser.add_argument("--only", choices=VIEWS, action="append")
    options = parser.parse_args()
    from playwright.sync_api import sync_playwright

    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        raise SystemExit("no Chromium: install it (on Debian: apt-get install chromium)")
    options.out.mkdir(parents=True, exist_ok=True)
    with explorer(options.runs) as address, sync_playwright() as play:
        browser = play.chromium.launch(executable_path=found, args=FLAGS)
        for name in options.only or VIEWS:
            take, theme = VIEWS[name]
            page = browser.new_page(viewport={"width": 1200, "height": 800}, color_scheme=theme)
            page.base = address
            path = options.out / f"explorer-{name}.png"
            try:
                take(page)
            except LookupError as reason:
                print(f"{name}: left out, {reason}")
                continue
            page.mouse.move(0, 0)
            page.wait_for_timeout(500)  # until the tip is gone and the charts have drawn
            clip = {
                "x": 0,
                "y": 0,
                "width": 1200,
                "height": min(1600, page.evaluate("() => document.body.scrollHeight")),
            }
            save(page.screenshot(full_page=True, clip=clip), path)
            print(f"{path}: {path.stat().st_size:,} bytes")
            page.close()
        browser.close()


if __name__ == "__main__":
    main()

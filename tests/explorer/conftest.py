"""The explorer in this process on a tiny model, and in one of its own on the embedded model."""

import json
import os
import shutil
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from llmctl.explorer import Limits

ADDRESS = "http://127.0.0.1"
HEADERS = {"Origin": ADDRESS, "Host": "127.0.0.1"}
FLAGS = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
).split()
SLOW_MS = 120_000
OUTPUT = Path("test-output/explorer")


@pytest.fixture(autouse=True)
def logs_without_limits():
    """A server of this process bounds loggers; the tests after it read their records."""
    from llmctl.explorer.access.log_limit import unlimit_logs

    yield
    unlimit_logs()


@pytest.fixture(scope="session")
def runs(tmp_path_factory):
    """A runs folder with one of everything; made by hand, because only its files matter here."""
    from .made_runs import make_runs

    return make_runs(tmp_path_factory.mktemp("explorer") / "runs")


@pytest.fixture
def big_curve(runs):
    """The name of a curve of 100,000 pairs; ask for it before `make_tab`, so that its pages end first."""
    from .made_runs import make_big_curve

    folder = make_big_curve(runs / "big", 100_000)
    yield folder.name
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def make_client(runs, tiny_model):
    """A client of the application in this process, on the tiny model; keywords go to `make_app`."""
    from starlette.testclient import TestClient

    from llmctl.explorer.app import make_app
    from llmctl.explorer.files.library import Library
    from llmctl.explorer.models import Models

    def make(limits=None, **options):
        library = Library(runs)
        app = make_app(library, Models(library, [str(tiny_model)]), limits or Limits(), **options)
        return TestClient(app, base_url=ADDRESS, headers=dict(HEADERS))

    return make


@pytest.fixture(scope="session")
def client(make_client):
    with make_client() as client:
        yield client


@pytest.fixture(scope="session")
def problem(tiny_model):
    return {"model": str(tiny_model), "state": "hello"}


def serve(runs, *options):
    """`llmctl explore` as a user starts it; the process and its address."""
    process = subprocess.Popen(
        [sys.executable, "-m", "llmctl", "explore", "--port", "0", "--runs", str(runs), *options],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_WAIT_POLICY": "PASSIVE", "HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1"},
    )
    line = process.stdout.readline()
    assert line.startswith("explorer: "), line
    return process, line.split()[1]


@pytest.fixture(scope="session")
def server(runs, tiny_model, embedded_model):
    """The address of an explorer: a tiny model by default, and the embedded one, warm."""
    process, address = serve(runs, "--model", str(tiny_model))
    try:
        order = json.dumps({"model": "smollm2-135m", "state": "warm"}).encode()
        headers = {"Content-Type": "application/json", "Origin": address}
        request = urllib.request.Request(f"{address}/api/next", order, headers)
        with urllib.request.urlopen(request, timeout=900) as answer:
            assert answer.status == 200
        yield address
    finally:
        process.terminate()
        process.wait(120)


@pytest.fixture(scope="session")
def browser():
    """Chromium; fails, never skips, where there is none."""
    from playwright.sync_api import expect, sync_playwright

    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    assert found, "these tests need Chromium: apt-get install chromium"
    with sync_playwright() as play:
        expect.set_options(timeout=SLOW_MS)
        browser = play.chromium.launch(executable_path=found, headless=True, args=FLAGS)
        yield browser
        browser.close()


class Tab:
    """A page in a context of its own, that remembers what it should not do.

    Args:
        browser: Chromium.
        server: The address of the explorer.
        may_miss: Whether the page may ask for something that is not there (status 404).
        options: Keywords of the browser's context.
    """

    def __init__(self, browser, server, *, may_miss=False, **options):
        self.context = browser.new_context(
            viewport={"width": 1280, "height": 900}, accept_downloads=True, **options
        )
        # Generous, so that a machine that is busy otherwise fails no test.
        self.context.set_default_timeout(SLOW_MS)
        self.page = self.context.new_page()
        self.may_miss = may_miss
        self.server = server
        self.errors, self.foreign = [], []
        self.page.on("console", self._note_console)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("requestfinished", self._note_refusal)
        self.page.on("request", lambda r: None if self._is_own(r.url) else self.foreign.append(r.url))
        self.page.on(
            "websocket",
            lambda w: None if self._is_own(w.url.replace("ws", "http", 1)) else self.foreign.append(w.url),
        )

    def _note_console(self, message):
        # The browser itself writes a line for each status 404; the page cannot prevent it.
        is_miss = self.may_miss and "the server responded with a status of 404" in message.text
        if message.type == "error" and not is_miss:
            self.errors.append(message.text)

    def _note_refusal(self, request):
        """What a refusal says, which the console leaves out."""
        answer = request.response()
        if answer is not None and answer.status >= 400 and not (self.may_miss and answer.status == 404):
            self.errors.append(f"{answer.status} {request.url}: {answer.text()}")

    def _is_own(self, url):
        return url.startswith((self.server, "blob:" + self.server, "data:"))

    def open(self, link=""):
        self.page.goto(f"{self.server}/{link}")
        return self.page

    def shoot(self, name):
        OUTPUT.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=OUTPUT / f"{name}.png", full_page=True)


@pytest.fixture
def make_tab(browser, server):
    """Tabs that end with the test, and fail it where they broke a rule."""
    tabs = []

    def make(**options):
        tabs.append(Tab(browser, server, **options))
        return tabs[-1]

    yield make
    for tab in tabs:
        tab.page.close()
        tab.context.close()
    wait_until(lambda: jobs_of(server) == 0)  # the next test finds an idle server
    for tab in tabs:
        assert tab.errors == []
        assert tab.foreign == []


def jobs_of(server):
    """How many jobs the server runs now."""
    with urllib.request.urlopen(f"{server}/api/about", timeout=120) as answer:
        return json.load(answer)["running"]


def wait_until(condition, seconds=120.0):
    """Wait for something of the server's threads."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)

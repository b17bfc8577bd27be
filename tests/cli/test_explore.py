"""`llmctl explore`: what it refuses before it listens."""

import socket

import pytest


def test_the_help_names_what_guards_the_page(llmctl):
    done = llmctl("explore", "--help")
    assert done.code == 0
    for word in (
        "--password",
        "--host",
        "--runs",
        "--parallel",
        "--certfile",
        "--keyfile",
        "--insecure-http",
    ):
        assert word in done.out


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("--host", "0.0.0.0"), "there is no password"),
        (("--host", "0.0.0.0", "--password", "short"), "8 are needed"),
        (("--host", "0.0.0.0", "--password", "long enough"), "--insecure-http"),
        (("--keyfile", "key.pem"), "without --certfile"),
        (("--certfile", "nowhere.pem", "--port", "0"), "the certificate nowhere.pem cannot be used"),
        (("--parallel", "0"), "limit running is 0"),
        (("--port", "70000"), "choose another --port"),
    ],
)
def test_a_mistake_is_one_line(llmctl, arguments, reason):
    done = llmctl("explore", *arguments)
    assert done.code == 2
    assert reason in done.err and len(done.err.strip().splitlines()) == 1


def test_a_port_in_use_is_one_line(llmctl):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        done = llmctl("explore", "--port", str(taken.getsockname()[1]))
    assert done.code == 2 and "in use" in done.err


def test_missing_packages_are_named_with_their_remedy(llmctl, monkeypatch):
    import importlib.util

    find = importlib.util.find_spec
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name, *rest: None if name == "uvicorn" else find(name, *rest)
    )
    done = llmctl("explore")
    assert done.code == 2 and "needs uvicorn" in done.err and "pip install" in done.err

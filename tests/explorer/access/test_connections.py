"""Clients that do not finish what they send, against a real server on 127.0.0.1."""

import http.client
import logging
import socket
import threading
import time
from contextlib import ExitStack, contextmanager

import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from llmctl.explorer.access.connections import Connections
from llmctl.explorer.limits import Limits
from llmctl.explorer.server import ServerSettings, listen, make_server

from ..conftest import wait_until

HALF = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n"


async def read_all(request):
    return PlainTextResponse(str(len(await request.body())))


@contextmanager
def running(**limits):
    """A server with these limits, in a thread; its port and its connections."""
    app = Starlette(routes=[Route("/", read_all, methods=["GET", "POST"])])
    with listen("127.0.0.1", 0) as listener:
        server = make_server(app, ServerSettings(limits=Limits(**limits)), listener)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        try:
            yield listener.getsockname()[1], listener.connections
        finally:
            server.should_exit = True
            thread.join(60)
            assert not thread.is_alive()


def ask(port, timeout=60):
    """The status and the body of a whole request."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        connection.request("GET", "/")
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def connect(port, sent=HALF):
    client = socket.create_connection(("127.0.0.1", port), timeout=60)
    client.sendall(sent)
    return client


def is_ended(client):
    """Whether the server has ended a connection; waits for it."""
    try:
        return client.recv(65536) == b""
    except ConnectionError:
        return True


@pytest.mark.parametrize(
    "sent", [b"", HALF, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nhalf of the body"]
)
def test_a_request_that_is_not_finished_in_time_is_ended(sent):
    with running(patience=1) as (port, _), connect(port, sent) as client:
        assert is_ended(client)
        assert ask(port) == (200, b"0")


def test_bytes_that_trickle_in_do_not_buy_time():
    with running(patience=1) as (port, _), connect(port) as client:
        client.settimeout(0.05)
        end = time.monotonic() + 60
        while time.monotonic() < end:
            try:
                client.sendall(b"a: b\r\n")
                if client.recv(1) == b"":
                    return
            except TimeoutError:
                continue
            except ConnectionError:
                return
        raise AssertionError("the connection is still open")


def test_a_new_visitor_gets_in_while_others_hold_every_place():
    with running(connections=8, patience=120) as (port, connections), ExitStack() as stack:
        held = [stack.enter_context(connect(port)) for _ in range(40)]
        wait_until(lambda: len(connections) >= 8)
        for _ in range(5):
            assert ask(port) == (200, b"0")
        assert len(connections) <= 8
        assert is_ended(held[0])  # the one that has waited for the longest


def test_600_half_sent_requests_neither_lock_others_out_nor_fill_the_log(caplog):
    caplog.set_level(logging.WARNING)
    with running(patience=120) as (port, connections):
        held = []
        try:
            for _ in range(600):
                try:
                    held.append(connect(port))
                except OSError:  # This process may have too few descriptors for both sides.
                    break
            assert len(held) > 250
            for client in held[: len(held) // 2]:
                client.close()
            assert ask(port) == (200, b"0")
            assert len(connections) <= Limits().connections
        finally:
            for client in held:
                client.close()
    assert len(caplog.records) <= 40


def test_a_process_that_may_open_few_files_has_fewer_places(monkeypatch):
    monkeypatch.setattr("resource.getrlimit", lambda _: (200, 200))
    assert Connections(256).most == 200 - 64 - 128
    monkeypatch.setattr("resource.getrlimit", lambda _: (10, 10))
    assert Connections(256).most == 1


def test_a_connection_that_is_served_does_not_give_way():
    connections, pairs = Connections(2), [socket.socketpair() for _ in range(3)]
    try:
        for number in range(2):
            connections.add(number, pairs[number][0])
            connections.set_waiting(number, False)
        connections.add(2, pairs[2][0])  # All others are served, so the new one is refused.
        assert pairs[2][1].recv(1) == b""
        pairs[0][1].setblocking(False)
        with pytest.raises(BlockingIOError):
            pairs[0][1].recv(1)
        for number in range(3):
            pairs[number][0].close()
        assert len(connections) == 0
    finally:
        for pair in pairs:
            for end in pair:
                end.close()

"""Connections of clients that do not finish what they send: timed out, counted, and closed when too many.

Anybody who can reach the port can open connections and send half a request on each. Every such connection
holds a file descriptor, and a process that runs out of them serves nobody. Two rules prevent that. A client
must send a whole request within some seconds. When all places are taken, the connection whose client has
kept the server waiting for the longest gives its place to the new one, so that a new visitor gets in.
"""

from __future__ import annotations

import asyncio
import resource
import socket
from collections import OrderedDict
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

_SPARE = 64  # file descriptors that are left for files, models and the libraries
BACKLOG = 128  # connections that are accepted in one step; each takes a descriptor before it can be closed


class Connections:
    """The open connections of a server, and which of them wait for their client.

    Args:
        most: Connections that may be open; less where the process may not open so many files.
    """

    def __init__(self, most: int) -> None:
        allowed, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        self.most = max(1, min(most, allowed - _SPARE - BACKLOG))
        self._waiting: OrderedDict[Any, socket.socket] = OrderedDict()
        self._busy: dict[Any, socket.socket] = {}

    def __len__(self) -> int:
        self._drop_closed()
        return len(self._waiting) + len(self._busy)

    def add(self, address: Any, connection: socket.socket) -> None:
        """Count a new connection; where it is one too many, close the one that has waited for the longest."""
        self._waiting[address] = connection
        if len(self._waiting) + len(self._busy) > self.most and len(self) > self.most:
            _, oldest = self._waiting.popitem(last=False)
            _hang_up(oldest)

    def set_waiting(self, address: Any, is_waiting: bool) -> None:
        """Say whether a connection waits for its client to send something."""
        source, target = (self._busy, self._waiting) if is_waiting else (self._waiting, self._busy)
        if (connection := source.pop(address, None)) is not None:
            target[address] = connection

    def _drop_closed(self) -> None:
        for group in (self._waiting, self._busy):
            for address in [key for key, connection in group.items() if connection.fileno() == -1]:
                del group[address]


def _hang_up(connection: socket.socket) -> None:
    """End a connection; the event loop hears of it and closes it."""
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:  # The client was faster.
        pass


class Listener(socket.socket):
    """A listening socket that counts the connections that it accepts, also those that never finish TLS."""

    connections: Connections | None = None

    def accept(self) -> tuple[socket.socket, Any]:
        """Accept a connection."""
        connection, address = super().accept()
        if self.connections is not None:
            self.connections.add(address, connection)
        return connection, address


def make_protocol(connections: Connections, patience_s: float) -> type[asyncio.Protocol]:
    """The HTTP protocol of a server whose clients must send whole requests in time.

    Args:
        connections: Told which connections wait for their client.
        patience_s: Seconds in which a client must send a whole request, headers and body.
    """

    class PatientProtocol(H11Protocol):
        _timer: asyncio.TimerHandle | None = None
        _address: Any = None
        _is_upgraded = False

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self._address = transport.get_extra_info("peername")
            self._watch()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self._watch()

        def on_response_complete(self) -> None:
            super().on_response_complete()
            self._watch()

        def handle_websocket_upgrade(self, event: h11.Request) -> None:
            self._is_upgraded = True
            super().handle_websocket_upgrade(event)

        def connection_lost(self, exc: Exception | None) -> None:
            self._set_timer(False)
            super().connection_lost(exc)

        def _watch(self) -> None:
            cycle = self.cycle
            has_request = cycle is not None and not cycle.response_complete and not cycle.more_body
            is_waiting = not self._is_upgraded and not has_request
            connections.set_waiting(self._address, is_waiting)
            self._set_timer(is_waiting and not self.transport.is_closing())

        def _set_timer(self, is_on: bool) -> None:
            """Start or end the timer. A running one goes on: bytes that trickle in do not reset it."""
            if is_on and self._timer is None:
                self._timer = self.loop.call_later(patience_s, self.transport.abort)
            elif not is_on and self._timer is not None:
                self._timer.cancel()
                self._timer = None

    return PatientProtocol

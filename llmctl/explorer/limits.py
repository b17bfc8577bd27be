"""What one visitor may ask for at most, so that a page left open cannot take the machine."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from llmctl.errors import UserError


@dataclass(frozen=True)
class Limits:
    """Bounds of every request; the page shows them and the server holds to them."""

    characters: int = 4_000
    """Characters of a state, a problem or any other text."""
    tokens: int = 2_048
    """Tokens of such a text; rare characters are several tokens each."""
    targets: int = 16
    """Targets of one search."""
    k: int = 12
    """Control tokens."""
    budget: int = 200_000
    """Controls scored for one target, or for one reachable set."""
    turns: int = 8
    """Turns of a conversation."""
    new_tokens: int = 512
    """Tokens of one reply."""
    running: int = 2
    """Searches that run at a time; they take turns on the model."""
    waiting: int = 16
    """Searches that wait for one of those; more are refused."""
    questions: int = 16
    """Quick questions that wait for the model; more are refused."""
    tabs: int = 64
    """Tabs that are served at a time; more are refused."""
    connections: int = 256
    """Connections that are open at a time; one that waits for its client gives way to a new one."""
    patience: int = 10
    """Seconds in which a client must send a whole request."""
    body: int = 65_536
    """Bytes of a request."""

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if value < 1:
                raise UserError(f"the limit {name} is {value}, but it must be at least 1")

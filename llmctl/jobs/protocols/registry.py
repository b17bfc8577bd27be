"""The protocols by name. Another package adds one with an entry point of the group "llmctl.protocols"."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmctl.registry import Registry

if TYPE_CHECKING:
    from llmctl.jobs.protocols.base import JobProtocol

_HERE = "llmctl.jobs.protocols"

PROTOCOLS: Registry[JobProtocol] = Registry(
    "protocol",
    "llmctl.protocols",
    {
        "single": f"{_HERE}.single:PROTOCOL",
        "parallel": f"{_HERE}.parallel:PROTOCOL",
        "sequential": f"{_HERE}.sequential:PROTOCOL",
        "reach_curve": f"{_HERE}.reach_curve:PROTOCOL",
        "msr_ranking": f"{_HERE}.msr_ranking:PROTOCOL",
    },
)

"""A process that can be killed, for the checks that a text could make slow.

`sandbox()` gives the one of this process; it starts nothing before the first check that needs it.
"""

from llmctl.tasks.sandbox.client import DEADLINE_S, Sandbox, sandbox

__all__ = ["DEADLINE_S", "Sandbox", "sandbox"]

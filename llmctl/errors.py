"""The errors that llmctl raises on purpose.

`UserError` is a mistake that the user can fix: the command line prints it as one line and exits with code 2.
`EngineError` is a failure of an engine or a server: rollouts record it on the episode and continue.
"""


class LlmctlError(Exception):
    """Base class of every error that llmctl raises on purpose."""


class UserError(LlmctlError):
    """A mistake that the user can fix.

    The message is one line with three parts: what was received, what is needed, what to do.
    """


class EngineError(LlmctlError):
    """An engine failed or returned something malformed; finished work is not affected."""

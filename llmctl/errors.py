"""The errors that llmctl raises on purpose.

`UserError` is for what a user can mend: the command line prints it as one line and exits with 2.
`EngineError` is for what an engine or a server did: rollouts record it on the episode and go on.
"""


class LlmctlError(Exception):
    """Base of every error that llmctl raises on purpose."""


class UserError(LlmctlError):
    """A mistake that the user can mend.

    The message is one line with three parts: what was received, what is needed, what to do.
    """


class EngineError(LlmctlError):
    """An engine failed or answered something malformed; finished work is not affected."""

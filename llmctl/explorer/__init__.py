"""The explorer: a local web page that shows what a prompt can force, while it is being found out.

Why it is no Gradio page, as measured side by side on two CPU cores with Debian's Chromium: Gradio 6.31 needs
61 requests and 0.7 to 0.9 s until its text box can be used, so speed alone would allow it. But its plots know
no click on a point, what a closed tab leaves behind is not the page's to stop, its scripts and styles need an
open Content-Security-Policy, and it brings 367 MB of packages. Starlette and uvicorn with plain JavaScript
modules need no build step, answer to every one of these, and paint in 0.3 s.

The arrows inside: `app` (routes) -> `sessions` (a tab's socket and its jobs) -> `search`, `reach_set` and
`converse` (the jobs), `questions` (what is answered at once) -> `models`, `library` (what may be opened) ->
`desk` (whose turn it is on a model), `limits`.
"""

from importlib import import_module

from llmctl.explorer.limits import Limits

__all__ = ["Limits", "make_app", "serve"]

_LAZY = {"make_app": "app", "serve": "server"}


def __getattr__(name: str) -> object:
    """Import the server's packages when they are asked for (PEP 562)."""
    if name in _LAZY:
        return getattr(import_module(f"llmctl.explorer.{_LAZY[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

"""The explorer: a local web page that shows what a prompt can force, while it is being found out.

Why it is no Gradio page: opened in turns on two busy CPU cores (`eval/bench/explorer.py`), this page could
be used after 0.55 s and a small page of Gradio 6.31 after 1.46 s, so speed alone would allow either. But
Gradio's plots know no click on a point, what a closed tab leaves behind is not the page's to stop, its
scripts and styles need an open Content-Security-Policy, and it brings 367 MB of packages. Starlette and
uvicorn with plain JavaScript modules need no build step and answer to every one of these.

The arrows inside: `app` (routes) -> `sessions` (a tab's socket and its jobs) -> `search`, `reach_set` and
`chat` (the work of a job), `questions` (what is answered at once) -> `models` (what may be opened) -> `jobs`,
`scheduler`, `slots`, `turns` (which request may run the model next), `events`, `limits`. `server` and
`access` stand between the network and `app`, and `files` between the files of runs and the answers.
"""

from llmctl.explorer.limits import Limits
from llmctl.lazy import lazy_names

__all__ = ["Limits", "make_app", "serve"]

_LAZY = {"make_app": "app", "serve": "server"}

__getattr__ = lazy_names(__name__, _LAZY)

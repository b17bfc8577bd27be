"""`llmctl sample`: sample replies to prompts from the command line or a file."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llmctl.cli.options import JsonOption
from llmctl.sampling.types import Settings

if TYPE_CHECKING:
    from llmctl.messages import Conversation
    from llmctl.sampling.types import Completion, Sampler

app = typer.Typer()


@app.command(help="Sample replies from a model.")
def sample(
    prompts: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[PROMPT]...", help="Prompts, each the message of a user.", show_default=False
        ),
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option(
            "--file",
            help="File with one prompt per line, or .jsonl file of conversations; - reads stdin.",
        ),
    ] = None,
    model: Annotated[str, typer.Option(help="Alias, folder or Hub name of the model.")] = "smollm2-135m",
    engine: Annotated[
        str, typer.Option(help="Sampling engine: auto, transformers, vllm or server.")
    ] = "auto",
    base_url: Annotated[
        str | None, typer.Option(help="URL of an OpenAI-compatible server, e.g. http://127.0.0.1:8000/v1.")
    ] = None,
    adapter: Annotated[
        Path | None, typer.Option(help="Folder of a PEFT adapter to load on the model.")
    ] = None,
    system: Annotated[str | None, typer.Option(help="System message to put before every prompt.")] = None,
    n: Annotated[int, typer.Option("--n", help="Number of replies per prompt.")] = Settings.n,
    temperature: Annotated[
        float, typer.Option(help="Sampling temperature; 0 is greedy decoding.")
    ] = Settings.temperature,
    top_p: Annotated[
        float, typer.Option(help="Nucleus sampling: keep this share of the probability, in (0, 1].")
    ] = Settings.top_p,
    max_tokens: Annotated[
        int, typer.Option(help="Maximum number of new tokens per reply.")
    ] = Settings.max_tokens,
    seed: Annotated[
        int, typer.Option(help="Seed for sampling; the same seed gives the same replies.")
    ] = Settings.seed or 0,
    as_json: JsonOption = False,
) -> None:
    """Print replies on stdout, and token counts and speed on stderr."""
    from llmctl.cli.prompts import read_conversations
    from llmctl.sampling import open_sampler
    from llmctl.sampling.open import choose_engine

    conversations = read_conversations(prompts or (), file, system)
    settings = Settings(n=n, temperature=temperature, top_p=top_p, max_tokens=max_tokens, seed=seed)
    engine, reason, options = _engine(engine, base_url)
    if engine == "auto":
        engine, reason = choose_engine(engine)
    sampler = open_sampler(model, engine=engine, adapter=adapter, **options)
    try:
        start = time.monotonic()
        replies = sampler.chat(conversations, settings)
        seconds = time.monotonic() - start
        _show(conversations, replies, as_json, _facts(sampler, settings, reason, seconds))
    finally:
        sampler.close()
    if any(reply.is_error for group in replies for reply in group):
        raise typer.Exit(1)


def _engine(engine: str, base_url: str | None) -> tuple[str, str, dict[str, Any]]:
    """The requested engine, the reason, and the options to open it with; a URL means a server."""
    from llmctl.errors import UserError
    from llmctl.trust.keys import allow_host

    if base_url is None:
        return engine, "requested", {}
    if engine not in ("auto", "server"):
        raise UserError(f"--base-url is for engine server, but the engine is {engine}: leave one of them out")
    allow_host(base_url)  # the user named it in person, so it may get the key
    return "server", "--base-url is given", {"base_url": base_url}


def _facts(sampler: Sampler, settings: Settings, reason: str, seconds: float) -> dict[str, Any]:
    """Model, engine, settings, usage and speed, for text and JSON."""
    tokens = sampler.usage.completion_tokens
    return {
        "model": sampler.info.model,
        "adapter": sampler.info.adapter,
        "engine": sampler.info.engine,
        "engine_reason": reason,
        "settings": vars(settings),
        "usage": vars(sampler.usage),
        "seconds": round(seconds, 3),
        "tokens_per_second": round(tokens / seconds, 1) if seconds > 0 else None,
    }


def _show(
    conversations: Sequence[Conversation],
    replies: Sequence[Sequence[Completion]],
    as_json: bool,
    facts: dict[str, Any],
) -> None:
    from llmctl.cli.failures import say
    from llmctl.cli.output import print_json, print_text

    if as_json:
        answers = [
            {
                "conversation": [dict(message) for message in asked],
                "replies": [_plain(reply) for reply in group],
            }
            for asked, group in zip(conversations, replies, strict=True)
        ]
        print_json({**facts, "answers": answers})
    else:
        is_single = len(replies) == 1 and len(replies[0]) == 1
        for asked, group in enumerate(replies, start=1):
            for number, reply in enumerate(group, start=1):
                if not is_single:
                    print_text(f"== prompt {asked}, reply {number}")
                if reply.is_error:
                    say(f"error: prompt {asked}, reply {number}: {reply.error}")
                else:
                    print_text(reply.text)
    usage, speed = facts["usage"], facts["tokens_per_second"]
    say(
        f"{usage['prompt_tokens']} prompt tokens, {usage['completion_tokens']} new tokens"
        + f" in {facts['seconds']:.1f} s"
        + (f", {speed:.1f} tokens/s" if speed is not None else "")
        + f"; {facts['model']} on {facts['engine']} ({facts['engine_reason']})"
    )


def _plain(reply: Completion) -> dict[str, Any]:
    return {
        "text": reply.text,
        "tokens": len(reply.token_ids),
        "logprob": reply.logprob,
        "finish_reason": reply.finish_reason,
        "error": reply.error,
    }

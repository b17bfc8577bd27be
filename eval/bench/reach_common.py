"""What the reach benches share: options, real pairs, and one line of result."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from llmctl.errors import UserError

Pair = tuple[tuple[int, ...], int]  # state ids, id of the true next token


def parser(description: str) -> argparse.ArgumentParser:
    """Options that every reach bench has."""
    made = argparse.ArgumentParser(description=description)
    made.add_argument("--model", default="smollm2-135m", help="alias, folder or Hub name")
    made.add_argument("--states", type=Path, required=True, help="JSONL with the keys state and next")
    made.add_argument("--device", default="auto")
    made.add_argument("--dtype", default="auto")
    made.add_argument("--seed", type=int, default=0)
    made.add_argument("--out", type=Path, help="write the JSON here as well")
    return made


def load_model(options: argparse.Namespace) -> tuple[Any, Any]:
    """Model and tokenizer."""
    from llmctl.models import load

    loaded = load(options.model, device=options.device, dtype=options.dtype)
    return loaded.model, loaded.tokenizer


def unsolved_pairs(model: Any, tokenizer: Any, path: Path, count: int) -> list[Pair]:
    """The first pairs of a file whose next token is one token and is not what the state alone emits."""
    if not path.is_file():
        raise UserError(f"{path} is no file: give a JSONL of states, each with the keys state and next")
    pairs: list[Pair] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        state = tokenizer.encode(row["state"], add_special_tokens=False)
        target = tokenizer.encode(row["next"], add_special_tokens=False)
        if not state or len(target) != 1:
            continue
        with torch.inference_mode():
            logits = model(torch.tensor([state], device=model.device), logits_to_keep=1).logits[0, -1]
        if int(logits.argmax()) != target[0]:
            pairs.append((tuple(state), target[0]))
        if len(pairs) == count:
            return pairs
    raise UserError(f"{path} holds {len(pairs)} such pairs, but {count} were asked for: lower --pairs")


def control_tokens(tokenizer: Any, count: int, seed: int) -> list[int] | None:
    """A random sample of the vocabulary; 0 means all of it."""
    if count == 0:
        return None
    order = torch.randperm(len(tokenizer), generator=torch.Generator().manual_seed(seed))
    return sorted(order[:count].tolist())


def timed(run: Callable[[], Any], device: torch.device) -> tuple[Any, float, float]:
    """A call's answer, its seconds by the wall, and its seconds of processor time (all threads).

    Beside other processes the second is the one to trust on a CPU.
    """
    if device.type == "cuda":
        torch.cuda.synchronize()
    start, start_cpu = time.perf_counter(), time.process_time()
    answer = run()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return answer, time.perf_counter() - start, time.process_time() - start_cpu


def report(result: dict[str, Any], lines: Sequence[str], out: Path | None) -> None:
    """Print the lines and then the JSON."""
    result = {"torch": torch.__version__, "threads": torch.get_num_threads()} | result
    text = json.dumps(result, indent=1)
    print("\n".join(lines))
    print(text)
    if out is not None:
        out.write_text(text + "\n", encoding="utf-8")

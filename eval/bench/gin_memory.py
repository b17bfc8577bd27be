"""Peak memory of Sparse-GIN's messages block by block, against keeping every head's attention matrix.

    python eval/bench/gin_memory.py --tokens 2048

Both compute the same messages over the graph of `--layers` layers of SmolLM2-135M's shape (9 heads of 64 over
3 key heads) and their gradient for queries, keys and nodes, each in a process of its own. Memory is what
comes on top of the inputs, at its highest. Outputs and gradients of the two are compared. The target is a
ratio of at most 1/4.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from llmctl.gin.attention_inputs import AttentionInputs
from llmctl.gin.graph import GraphRule, adjacency
from llmctl.gin.messages import send_messages
from llmctl.models.devices import pick_device
from llmctl.studies.adapters.memory import PeakMemory

SIDES = ("blocks", "whole")
ONE = "--one"
TARGET = 0.25
HEADS, KEY_HEADS, HEAD_WIDTH, WIDTH = 9, 3, 64, 32


def make_layers(tokens: int, layers: int, seed: int, device: torch.device) -> list[list[Tensor]]:
    """Queries, keys and nodes of each layer, the same in both processes."""
    draw = torch.Generator().manual_seed(seed)
    shapes = [(1, HEADS, tokens, HEAD_WIDTH), (1, KEY_HEADS, tokens, HEAD_WIDTH), (1, tokens, WIDTH)]
    return [
        [torch.randn(shape, generator=draw).to(device).requires_grad_() for shape in shapes]
        for _ in range(layers)
    ]


def messages(side: str, query: Tensor, key: Tensor, nodes: Tensor) -> Tensor:
    """(1, tokens, WIDTH), by blocks or over the whole graph at once."""
    # Scores twice as sharp as usual: random queries would otherwise attend to all alike and keep no edge.
    inputs = AttentionInputs.build(query, key, None, 2 * HEAD_WIDTH**-0.5)
    rule = GraphRule()
    return send_messages(inputs, rule, nodes) if side == "blocks" else (adjacency(inputs, rule) @ nodes)[:, 0]


def measure(options: argparse.Namespace) -> float | None:
    """Peak memory in MiB of one side, whose outputs and gradients are left in a file."""
    device = pick_device(options.device)
    for query, key, nodes in make_layers(8, 1, 0, device):  # thread pools and libraries
        messages(options.one, query, key, nodes).sum().backward()
    layers = make_layers(options.tokens, options.layers, options.seed, device)
    meter = PeakMemory()
    if meter.is_cuda:
        torch.cuda.synchronize()
    held = torch.cuda.memory_allocated() / 2**20 if meter.is_cuda else 0.0
    meter.reset()
    outputs = [messages(options.one, *layer) for layer in layers]
    torch.stack(outputs).square().sum().backward()
    peak = meter.peak()
    results = {f"output.{i}": output.detach().cpu() for i, output in enumerate(outputs)}
    for i, layer in enumerate(layers):
        for name, tensor in zip(("query", "key", "nodes"), layer, strict=True):
            if tensor.grad is None:
                raise RuntimeError(f"the {name} of layer {i} got no gradient")
            results[f"gradient.{name}.{i}"] = tensor.grad.cpu()
    save_file(results, options.results)
    return None if peak is None else peak - held


def in_own_process(side: str, folder: Path, options: argparse.Namespace) -> float:
    """Peak memory of a side in MiB."""
    passed = ("tokens", "layers", "device", "seed", "threads")
    arguments = [f"--{name}={getattr(options, name)}" for name in passed]
    hidden = {"CUDA_VISIBLE_DEVICES": ""} if options.device == "cpu" else {}
    done = subprocess.run(
        [sys.executable, __file__, ONE, side, "--results", str(folder / side), *arguments],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | hidden,
    )
    peak: float | None = json.loads(done.stdout)
    if peak is None:
        raise RuntimeError("this system does not tell a process's peak memory")
    return peak


def differences(folder: Path) -> dict[str, float]:
    """The largest difference of the outputs and of the gradients, and the largest output."""
    blocks, whole = (load_file(folder / side) for side in SIDES)
    found = {"output": 0.0, "gradient": 0.0, "largest_output": 0.0}
    for name, tensor in whole.items():
        kind = name.split(".")[0]
        found[kind] = max(found[kind], (tensor - blocks[name]).abs().max().item())
        if kind == "output":
            found["largest_output"] = max(found["largest_output"], tensor.abs().max().item())
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--tokens", type=int, default=2048)
    parser.add_argument(
        "--layers", type=int, default=1, help="layers whose backward comes after all forwards"
    )
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, default=0, help="of torch on a CPU; 0 leaves them as they are")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="write the JSON here as well")
    parser.add_argument(ONE, choices=SIDES, default=None, help=argparse.SUPPRESS)
    parser.add_argument("--results", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    if options.one is not None:
        print(json.dumps(measure(options)))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        peaks = {side: in_own_process(side, folder, options) for side in SIDES}
        largest = differences(folder)
    ratio = peaks["blocks"] / peaks["whole"]
    verdict = "met" if ratio <= TARGET else "MISSED"
    print(
        f"blocks {peaks['blocks']:.1f} MiB, whole {peaks['whole']:.1f} MiB: ratio {ratio:.3f} "
        f"(target {TARGET}, {verdict}); largest difference of outputs {largest['output']:.2e} "
        f"(outputs up to {largest['largest_output']:.2f}), of gradients {largest['gradient']:.2e}"
    )
    report: dict[str, Any] = {"ratio": ratio, "target": TARGET, "peak_mib": peaks, "differences": largest}
    for name in ("tokens", "layers", "seed"):
        report[name] = getattr(options, name)
    report |= {
        "device": str(pick_device(options.device)),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }
    text = json.dumps(report)
    print(text)
    if options.out is not None:
        options.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

"""Where a scan's time goes, and what share of the machine's matmul rate it reaches.

The rate of the machine is measured in the same run, on a product of the same shape as the model's widest
layer in the scan. The scan's operations are two for each weight and token, the output layer counted
once per sequence.

    python eval/bench/reach_profile.py --states states.jsonl
"""

import time

import reach_common as common
import torch
from torch.profiler import ProfilerActivity, profile

from llmctl.reach import Problem, scan_state


def main() -> None:
    parser = common.parser(__doc__.splitlines()[0])
    parser.add_argument("--tokens", type=int, default=512, help="control tokens scanned; 0: all")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    model, tokenizer = common.load_model(options)
    state, _ = common.unsolved_pairs(model, tokenizer, options.states, 1)[0]
    candidates = common.control_tokens(tokenizer, options.tokens, options.seed)
    problem = Problem(state=list(state), candidates=candidates)

    def scan():
        return scan_state(model, tokenizer, problem)

    scan()
    best_scan, best_rate = float("inf"), 0.0
    for _ in range(options.repeats):  # taking turns, so that a busy machine slows both alike
        best_rate = max(best_rate, matmul_rate(model))
        found, seconds, _ = common.timed(scan, model.device)
        best_scan = min(best_scan, seconds)
    rate = operations(model, found) / best_scan
    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * (model.device.type == "cuda")
    with profile(activities=activities) as trace:
        scan()
    key = "self_device_time_total" if model.device.type == "cuda" else "self_cpu_time_total"
    rows = sorted(trace.key_averages(), key=lambda row: -getattr(row, key))
    total = sum(getattr(row, key) for row in rows)
    shares = {row.key: getattr(row, key) / total for row in rows[:10]}
    result = {
        "bench": "profile",
        "controls": len(found.controls),
        "forward_tokens": found.forward_tokens,
        "seconds": best_scan,
        "candidates_a_second": len(found.controls) / best_scan,
        "scan_flops": rate,
        "matmul_flops": best_rate,
        "share_of_matmul_rate": rate / best_rate,
        "time_by_operation": shares,
    }
    lines = [
        f"the scan reaches {rate / best_rate:.1%} of the matmul rate "
        f"({rate / 1e9:.1f} of {best_rate / 1e9:.1f} GFLOP/s)",
        *(f"{share:6.1%} {name}" for name, share in shares.items()),
    ]
    common.report(result, lines, options.out)


def matmul_rate(model) -> float:
    """FLOP/s of a product as wide as the model's widest layer, on 1,024 rows."""
    weight = max(
        (m.weight for m in model.modules() if isinstance(m, torch.nn.Linear) and m.weight.numel() < 2**24),
        key=lambda w: w.numel(),
    )
    rows = torch.randn(1024, weight.shape[1], device=weight.device, dtype=weight.dtype)
    with torch.inference_mode():
        rows @ weight.T
        start = time.perf_counter()
        for _ in range(20):
            rows @ weight.T
        if weight.device.type == "cuda":
            torch.cuda.synchronize()
        return 20 * 2 * 1024 * weight.numel() / (time.perf_counter() - start)


def operations(model, found) -> float:
    """Floating-point operations of a scan, attention's own products left out."""
    embedding = model.get_input_embeddings().weight.numel()
    head = model.get_output_embeddings().weight
    tied = head is model.get_input_embeddings().weight
    body = sum(p.numel() for p in model.parameters()) - embedding - (0 if tied else head.numel())
    return 2.0 * (body * found.forward_tokens + head.numel() * found.forwards)


if __name__ == "__main__":
    main()

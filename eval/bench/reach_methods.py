"""Search methods at equal tokens on true next tokens, and recall at k = 1 against the exact scan.

    python eval/bench/reach_methods.py --states states.jsonl                      # every method, k = 1, 2, 4
    python eval/bench/reach_methods.py --states states.jsonl --methods default    # the default schedule alone
    python eval/bench/reach_methods.py --states states.jsonl --part recall --pairs 4

Cost is forward tokens plus twice the backward tokens. At equal tokens, length j of a search up to k gets the
share j / (1 + ... + k) of the tokens; what a length leaves over goes to the next. A search is stopped after
the step that spends its share, so the last step may go over it; the tokens spent are reported. Pairs are
drawn from line `--first` of the file on, so that those before it stay unseen; pairs that the state alone
solves are left out.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from typing import Any

import reach_common as common
import torch

from llmctl.reach import Phase, Problem, solve
from llmctl.reach.scoring.scan import StateScan
from llmctl.reach.search import schedule as schedules
from llmctl.reach.search.methods.registry import METHODS
from llmctl.reach.search.prepare import start_search
from llmctl.reach.search.state import Search
from llmctl.runs.stats import clustered_mean, wilson

METHODS_COMPARED = ("copying+gcg", "gcg", "copying", "greedy", "beam", "random")


def main() -> None:
    parser = common.parser(__doc__.splitlines()[0])
    parser.add_argument("--part", choices=("methods", "recall"), default="methods")
    parser.add_argument(
        "--methods", nargs="+", default=METHODS_COMPARED, choices=(*METHODS_COMPARED, "default")
    )
    parser.add_argument("--pairs", type=int, default=30, help="pairs (methods) or states (recall)")
    parser.add_argument("--first", type=int, default=200, help="lines of the file to leave out")
    parser.add_argument("--draw", type=int, default=7, help="seed for the draw of the pairs")
    parser.add_argument("--ks", type=int, nargs="+", default=(1, 2, 4))
    parser.add_argument("--tokens", type=int, default=12_000, help="forward tokens plus twice the backward")
    parser.add_argument("--effort", type=float, default=1.0, help="of the default schedule")
    parser.add_argument("--controls", type=int, default=4096, help="control tokens allowed (recall)")
    parser.add_argument("--candidates", type=int, nargs="+", default=(64, 640), help="at k = 1 (recall)")
    parser.add_argument("--targets", type=int, default=12, help="reachable targets per state (recall)")
    options = parser.parse_args()
    model, tokenizer = common.load_model(options)
    pairs = unsolved(model, tokenizer, options)
    part = methods_part if options.part == "methods" else recall_part
    result, lines = part(model, tokenizer, pairs, options)
    common.report(
        {"bench": options.part, "pairs": len(pairs), "draw": options.draw} | result, lines, options.out
    )


def unsolved(model: Any, tokenizer: Any, options: Any) -> list[common.Pair]:
    """Pairs of a state and the first token of what follows it, in the order of the draw."""
    rows = [json.loads(line) for line in options.states.read_text(encoding="utf-8").splitlines()]
    order = random.Random(options.draw).sample(
        range(options.first, len(rows)), min(200, len(rows) - options.first)
    )
    pairs: list[common.Pair] = []
    for row in (rows[place] for place in order):
        state = tokenizer.encode(row["state"], add_special_tokens=False)
        target = tokenizer.encode(row["next"], add_special_tokens=False)
        if len(pairs) == options.pairs:
            break
        if not state or not target:
            continue
        with torch.inference_mode():
            logits = model(torch.tensor([state], device=model.device), logits_to_keep=1).logits[0, -1]
        if int(logits.argmax()) != target[0]:
            pairs.append((tuple(state), target[0]))
    return pairs


def methods_part(
    model: Any, tokenizer: Any, pairs: Sequence[common.Pair], options: Any
) -> tuple[dict[str, Any], list[str]]:
    result: dict[str, Any] = {}
    lines: list[str] = []
    for k in options.ks:
        found: dict[str, list[dict[str, Any]]] = {}
        for name in options.methods:
            found[name] = []
            for number, (state, target) in enumerate(pairs):
                problem = Problem(list(state), [target])
                one = run_default if name == "default" else run_at_equal_tokens
                found[name].append(one(model, tokenizer, problem, name, k, options))
                print(f"k {k} {name} {number + 1}/{len(pairs)}: {found[name][-1]}", flush=True)
        result[str(k)] = {name: summary(answers) | {"answers": answers} for name, answers in found.items()}
        for name, answers in found.items():
            lines.append(f"k <= {k} {name}: {summary(answers)}{against(answers, found[options.methods[0]])}")
    return result, lines


def run_default(
    model: Any, tokenizer: Any, problem: Problem, name: str, k: int, options: Any
) -> dict[str, Any]:
    answer = solve(model, tokenizer, problem, schedules.default(k, effort=options.effort, seed=options.seed))
    cost = answer.forward_tokens + 2 * answer.backward_tokens
    spent = {"planned": sum(answer.planned.values()), "spent": sum(answer.spent.values())}
    tokens = {"tokens": cost, "forward_tokens": answer.forward_tokens}
    return {"k": answer.k, "loss": answer.loss, "by": answer.method} | tokens | spent


def run_at_equal_tokens(
    model: Any, tokenizer: Any, problem: Problem, name: str, k: int, options: Any
) -> dict[str, Any]:
    search = start_search(model, tokenizer, problem, k)
    search.generator.manual_seed(options.seed)
    shares = [j / sum(range(1, k + 1)) for j in range(1, k + 1)]
    solved = None
    for j in range(1, k + 1):
        limit = sum(shares[:j]) * options.tokens
        for phase in phases_of(name, j, int(limit - cost_of(search)), search):
            for _ in METHODS[phase.method].run(search, phase):
                if cost_of(search) >= limit:
                    break
            if search.is_solved(j):
                solved = j
                break
        if solved:
            break
    best = search.best[solved] if solved else min(search.best.values(), key=lambda best: best.loss)
    return {"k": solved, "loss": best.loss, "by": best.method, "tokens": cost_of(search)}


def phases_of(name: str, k: int, tokens: int, search: Search) -> list[Phase]:
    """The phases of a method at length k, sized so that they would spend about this many tokens."""
    count = max(tokens // search.scorer.layout.length(k), 1)
    if name == "random":
        return [Phase("random", k, candidates=count)]
    if name == "greedy":
        return [Phase("greedy", k, candidates=count)]
    if name == "beam":
        return [Phase("beam", k, candidates=max(count // 8, 1), width=8)]
    phases = [Phase("copying", k)] if "copying" in name else []
    if "gcg" in name:
        own = schedules.default(k).phases[-1]  # the default's sizes, with more steps than the tokens allow
        phases.append(
            Phase(
                "gcg",
                k,
                candidates=own.candidates,
                steps=count,
                top_k=own.top_k,
                swaps=own.swaps,
                buffer=own.buffer,
                patience=own.patience,
            )
        )
    return phases


def cost_of(search: Search) -> int:
    return search.meter.forward_tokens + 2 * search.meter.backward_tokens


def summary(answers: Sequence[dict[str, Any]]) -> dict[str, Any]:
    solved = [answer for answer in answers if answer["k"] is not None]
    left = [answer["loss"] for answer in answers if answer["k"] is None]
    low, high = wilson(len(solved), len(answers)).bounds()
    found = {"solved": len(solved), "of": len(answers), "low": round(low, 3), "high": round(high, 3)}
    for key in ("tokens", "forward_tokens", "planned", "spent"):
        if key in answers[0]:
            found[key] = sum(answer[key] for answer in answers)
    found["median_tokens_to_hit"] = sorted(a["tokens"] for a in solved)[len(solved) // 2] if solved else None
    found["mean_loss_left"] = round(sum(left) / len(left), 3) if left else None
    return found


def against(answers: Sequence[dict[str, Any]], first: Sequence[dict[str, Any]]) -> str:
    """The paired difference of the solved share to the first method named."""
    if answers is first or len(answers) < 2:
        return ""
    gains = [
        float(a["k"] is not None) - float(b["k"] is not None) for a, b in zip(answers, first, strict=True)
    ]
    found = clustered_mean(gains, [str(number) for number in range(len(gains))])
    low, high = found.bounds()
    return f"; solved share minus the first method's: {found.value:+.3f} [{low:+.3f}, {high:+.3f}]"


def recall_part(
    model: Any, tokenizer: Any, pairs: Sequence[common.Pair], options: Any
) -> tuple[dict[str, Any], list[str]]:
    """Of the targets that an exact scan of a sample of control tokens reaches, those that k = 1 finds."""
    controls = common.control_tokens(tokenizer, options.controls, options.seed)
    hits: dict[int, list[bool]] = {count: [] for count in options.candidates}
    for state, _ in pairs:
        template = Problem(list(state), candidates=controls)
        scan = StateScan(model, tokenizer, template, [])
        exact = scan.finish(scan.chunks())
        targets = sorted(set(exact.reachable()) - {exact.base_token})
        for target in random.Random(options.seed).sample(targets, min(options.targets, len(targets))):
            for count in options.candidates:
                effort = count / 64  # the default plans 64 controls of one token at effort 1
                plan = schedules.default(1, effort=effort, seed=options.seed)
                answer = solve(model, tokenizer, Problem(list(state), [target], candidates=controls), plan)
                hits[count].append(answer.is_reached)
            print({count: f"{sum(found)}/{len(found)}" for count, found in hits.items()}, flush=True)
    result = {
        str(count): {"found": sum(found), "of": len(found), "recall": sum(found) / max(len(found), 1)}
        for count, found in hits.items()
    }
    lines = [f"k = 1, {count} candidates: {result[str(count)]}" for count in options.candidates]
    return {"controls": options.controls} | result, lines


if __name__ == "__main__":
    main()

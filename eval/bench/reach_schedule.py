"""The published schedule against llmctl's default on true next tokens: pairs solved and forward tokens.

Both sides may use the same control tokens. The published side makes full scans for k = 1, 2, 3 and then
GCG at k = 4, each to its end, as the public code does. A gradient step's backward pass counts as two
forward passes over its tokens.

    python eval/bench/reach_schedule.py --states states.jsonl  # minutes
    python eval/bench/reach_schedule.py --states states.jsonl --pairs 12 --tokens 1024 \
        --candidates 128 --steps 34
    python eval/bench/reach_schedule.py --states states.jsonl --pairs 12 --tokens 0 \
        --candidates 768 --steps 34
"""

import reach_common as common

from llmctl.reach import Problem, Result, Schedule, solve
from llmctl.reach.search import schedule as schedules


def main() -> None:
    parser = common.parser(__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=2)
    parser.add_argument("--tokens", type=int, default=128, help="control tokens allowed; 0: all")
    parser.add_argument("--candidates", type=int, default=32, help="GCG candidates per step, published side")
    parser.add_argument("--steps", type=int, default=8, help="GCG steps, published side")
    parser.add_argument("--max-k", type=int, default=4)
    parser.add_argument("--only", choices=("both", "default", "published"), default="both")
    options = parser.parse_args()
    model, tokenizer = common.load_model(options)
    pairs = common.unsolved_pairs(model, tokenizer, options.states, options.pairs)
    candidates = common.control_tokens(tokenizer, options.tokens, options.seed)
    published = schedules.published(
        ks_gcg=(options.max_k,), candidates=options.candidates, steps=options.steps, seed=options.seed
    )
    sides: dict[str, Schedule | None] = {"default": None, "published": published}
    result: dict[str, object] = {"bench": "schedule", "pairs": len(pairs), "controls": options.tokens}
    totals = {}
    for name, schedule in sides.items():
        if options.only not in ("both", name):
            continue
        found = []
        for number, (state, target) in enumerate(pairs):
            problem = Problem(state=list(state), target=[target], candidates=candidates)
            answer, seconds, _ = common.timed(
                lambda p=problem, s=schedule: solve(model, tokenizer, p, s, max_k=options.max_k), model.device
            )
            found.append(entry(answer, seconds))
            print(f"{name} {number + 1}/{len(pairs)}: {found[-1]}", flush=True)
        totals[name] = {
            "solved": sum(one["k"] is not None for one in found),
            "forward_tokens": sum(one["forward_tokens"] for one in found),
            "all_tokens": sum(one["all_tokens"] for one in found),
            "seconds": sum(one["seconds"] for one in found),
        }
        result[name] = totals[name] | {"answers": found}
    lines = [f"{name}: {total}" for name, total in totals.items()]
    if len(totals) == 2:
        for key in ("forward_tokens", "all_tokens", "seconds"):
            result[f"ratio_{key}"] = totals["published"][key] / totals["default"][key]
        lines.append(
            f"solved {totals['default']['solved']} against {totals['published']['solved']} of {len(pairs)} "
            f"with {result['ratio_forward_tokens']:.1f} times fewer forward tokens "
            f"({result['ratio_all_tokens']:.1f} times with backward passes counted)"
        )
    common.report(result, lines, options.out)


def entry(answer: Result, seconds: float) -> dict:
    return {
        "k": answer.k,
        "base_loss": round(answer.base_loss, 3),
        "base_rank": answer.base_rank,
        "forwards": answer.forwards,
        "forward_tokens": answer.forward_tokens,
        "all_tokens": answer.forward_tokens + 2 * answer.backward_tokens,
        "seconds": round(seconds, 2),
    }


if __name__ == "__main__":
    main()

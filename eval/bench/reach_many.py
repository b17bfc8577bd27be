"""Several searches in lockstep against one after another: pairs per second, on the same pairs and schedule.

A search scores a dozen controls per forward pass: too few for a GPU, while one search keeps a CPU busy.

    python eval/bench/reach_many.py --states states.jsonl --device cuda  # minutes
    python eval/bench/reach_many.py --states states.jsonl --pairs 4 --max-k 2 --steps 2  # a CPU
"""

import reach_common as common

from llmctl.reach import Phase, Problem, Schedule, solve, solve_many


def main() -> None:
    parser = common.parser(__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=32)
    parser.add_argument("--together", type=int, default=16, help="searches in lockstep")
    parser.add_argument("--position", choices=("before", "after"), default="before")
    parser.add_argument("--max-k", type=int, default=4)
    parser.add_argument("--candidates", type=int, default=16, help="candidates per gradient")
    parser.add_argument("--steps", type=int, default=8, help="gradients per k")
    options = parser.parse_args()
    model, tokenizer = common.load_model(options)
    pairs = common.unsolved_pairs(model, tokenizer, options.states, options.pairs)
    problems = [Problem(list(state), [target], position=options.position) for state, target in pairs]
    phases = tuple(
        Phase("gcg", k, candidates=options.candidates, steps=options.steps, top_k=64)
        for k in range(1, options.max_k + 1)
    )
    schedule = Schedule("bench", phases, seed=options.seed)
    solve(model, tokenizer, problems[0], Schedule("warm", phases[:1]))  # kernels are chosen at first use
    found, seconds, busy = common.timed(
        lambda: solve_many(model, tokenizer, problems, schedule, together=options.together), model.device
    )
    alone, seconds_alone, busy_alone = common.timed(
        lambda: [solve(model, tokenizer, problem, schedule) for problem in problems], model.device
    )
    result = {
        "bench": "many",
        "device": str(model.device),
        "dtype": str(model.dtype),
        "pairs": len(pairs),
        "together": options.together,
        "position": options.position,
        "ratio_pairs_a_second": seconds_alone / seconds,
        "ratio_pairs_a_processor_second": busy_alone / busy,
        "seconds": seconds,
        "seconds_alone": seconds_alone,
        "solved": sum(one.is_reached for one in found),
        "solved_alone": sum(one.is_reached for one in alone),
        "equal_answers": sum(
            (one.k, one.control_ids) == (two.k, two.control_ids)
            for one, two in zip(found, alone, strict=True)
        ),
        "forward_tokens": sum(one.forward_tokens for one in found),
        "forward_tokens_alone": sum(one.forward_tokens for one in alone),
    }
    lines = [
        f"{options.together} searches in lockstep: {len(pairs) / seconds:.3f} pairs a second against "
        f"{len(pairs) / seconds_alone:.3f}, {result['ratio_pairs_a_second']:.2f} times "
        f"({result['ratio_pairs_a_processor_second']:.2f} times in processor time)",
        f"the same answer on {result['equal_answers']} of {len(pairs)} pairs, solved {result['solved']} "
        f"against {result['solved_alone']}",
    ]
    common.report(result, lines, options.out)


if __name__ == "__main__":
    main()

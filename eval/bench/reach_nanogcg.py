"""llmctl against nanoGCG on the same pairs: candidates per second at equal settings, and time to a hit.

Needs the peer: `pip install nanogcg scipy`. Its own default puts the tokens after the message, and so
does this bench; `--position before` puts them before it. nanoGCG 0.3.0 cannot read the prefix cache of
transformers 5, so its cache is off; its filter by decoding is off too, as reach's is.

    python eval/bench/reach_nanogcg.py --states states.jsonl
    python eval/bench/reach_nanogcg.py --states states.jsonl --pairs 10 --candidates 64 --hit-steps 12
"""

import logging

import reach_common as common
import torch

from llmctl.errors import UserError
from llmctl.reach import Phase, Problem, Schedule, solve

PLAIN = "{% for message in messages %}{{ message['content'] }}{% endfor %}"


def main() -> None:
    parser = common.parser(__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=2)
    parser.add_argument("--position", choices=("after", "before"), default="after")
    parser.add_argument("--k", type=int, default=4)
    parser.add_argument("--candidates", type=int, default=64, help="candidates per step")
    parser.add_argument(
        "--steps", type=int, default=4, help="steps of the timed runs, which do not stop at a hit"
    )
    parser.add_argument("--hit-steps", type=int, default=12, help="maximum steps to the first success")
    options = parser.parse_args()
    try:
        import nanogcg
    except ImportError as error:
        raise UserError("nanogcg is not installed: run `pip install nanogcg scipy`") from error
    logging.getLogger("nanogcg").setLevel(logging.ERROR)
    model, tokenizer = common.load_model(options)
    pairs = common.unsolved_pairs(model, tokenizer, options.states, options.pairs)
    tokenizer.chat_template = PLAIN
    bench = _Bench(nanogcg, model, tokenizer, options)
    rows = []
    for number, pair in enumerate(pairs):
        rows.append(bench.pair(*pair))
        print(f"{number + 1}/{len(pairs)}: {rows[-1]}", flush=True)
    total = {key: sum(row[key] for row in rows) for key in rows[0]}
    ours, theirs = (total[f"{who}_scored"] / total[f"{who}_seconds"] for who in ("ours", "theirs"))
    rate = {who: total[f"{who}_scored"] / total[f"{who}_cpu"] for who in ("ours", "theirs")}
    result = {
        "bench": "nanogcg",
        "pairs": len(rows),
        "k": options.k,
        "candidates": options.candidates,
        "position": options.position,
        "ratio_candidates_a_second": ours / theirs,
        "ratio_candidates_a_processor_second": rate["ours"] / rate["theirs"],
        "ratio_time_to_hit": total["theirs_hit_seconds"] / total["ours_hit_seconds"],
        "ratio_processor_time_to_hit": total["theirs_hit_cpu"] / total["ours_hit_cpu"],
        "hits_ours": total["ours_hit"],
        "hits_theirs": total["theirs_hit"],
        "rows": rows,
    }
    lines = [
        f"candidates per second: {ours:.1f} against {theirs:.1f}, {ours / theirs:.2f} times "
        f"({result['ratio_candidates_a_processor_second']:.2f} times in processor time)",
        f"time to the first success, or {options.hit_steps} steps: {result['ratio_time_to_hit']:.2f} times "
        f"faster ({result['ratio_processor_time_to_hit']:.2f} times in processor time), "
        f"hits {total['ours_hit']} against {total['theirs_hit']} of {len(rows)}",
    ]
    common.report(result, lines, options.out)


class _Bench:
    def __init__(self, peer, model, tokenizer, options) -> None:
        self.peer, self.model, self.tokenizer, self.options = peer, model, tokenizer, options

    def pair(self, state: tuple[int, ...], target: int) -> dict:
        steps, hit_steps = self.options.steps, self.options.hit_steps
        theirs, theirs_seconds, theirs_cpu = self.theirs(state, target, steps, stop=False)
        ours, ours_seconds, ours_cpu = self.ours(state, target, steps, stop=False)
        their_hit, their_hit_seconds, their_hit_cpu = self.theirs(state, target, hit_steps, stop=True)
        our_hit, our_hit_seconds, our_hit_cpu = self.ours(state, target, hit_steps, stop=True)
        return {
            "ours_scored": ours.forwards,
            "theirs_scored": len(theirs.losses) * self.options.candidates,
            "ours_seconds": ours_seconds,
            "theirs_seconds": theirs_seconds,
            "ours_cpu": ours_cpu,
            "theirs_cpu": theirs_cpu,
            "ours_hit": our_hit.is_reached,
            "theirs_hit": len(their_hit.losses) < hit_steps,
            "ours_hit_seconds": our_hit_seconds,
            "theirs_hit_seconds": their_hit_seconds,
            "ours_hit_cpu": our_hit_cpu,
            "theirs_hit_cpu": their_hit_cpu,
        }

    def theirs(self, state, target, steps: int, *, stop: bool):
        config = self.peer.GCGConfig(
            num_steps=steps,
            optim_str_init=" x" * self.options.k,
            search_width=self.options.candidates,
            topk=128,
            early_stop=stop,
            use_prefix_cache=False,
            allow_non_ascii=True,
            filter_ids=False,
            seed=self.options.seed,
            verbosity="ERROR",
        )
        text = self.tokenizer.decode(state)
        content = text + "{optim_str}" if self.options.position == "after" else "{optim_str}" + text
        messages = [{"role": "user", "content": content}]
        goal = self.tokenizer.decode([target])
        answer = common.timed(
            lambda: self.peer.run(self.model, self.tokenizer, messages, goal, config), self.model.device
        )
        torch.use_deterministic_algorithms(False)  # nanoGCG leaves it on
        return answer

    def ours(self, state, target, steps: int, *, stop: bool):
        problem = Problem(state=list(state), target=[target], position=self.options.position)
        phase = Phase(
            "gcg",
            self.options.k,
            candidates=self.options.candidates,
            steps=steps,
            top_k=64 if stop else 128,  # to the first success as the default schedule searches
            stop_early=stop,
        )
        schedule = Schedule("bench", (phase,), shorten=False, seed=self.options.seed)
        return common.timed(lambda: solve(self.model, self.tokenizer, problem, schedule), self.model.device)


if __name__ == "__main__":
    main()

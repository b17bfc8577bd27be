"""One scan of a fixed state answers every target: what do 75 targets cost compared with one?

python eval/bench/reach_shared_scan.py --states states.jsonl
python eval/bench/reach_shared_scan.py --states states.jsonl --tokens 0      # the whole vocabulary
"""

import reach_common as common
import torch

from llmctl.reach import Problem, scan_state


def main() -> None:
    parser = common.parser(__doc__.splitlines()[0])
    parser.add_argument("--tokens", type=int, default=512, help="control tokens scanned; 0: all")
    parser.add_argument("--targets", type=int, default=75, help="the most likely next tokens of the state")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    model, tokenizer = common.load_model(options)
    state, _ = common.unsolved_pairs(model, tokenizer, options.states, 1)[0]
    candidates = common.control_tokens(tokenizer, options.tokens, options.seed)
    problem = Problem(state=list(state), candidates=candidates)
    with torch.inference_mode():
        logits = model(torch.tensor([state], device=model.device), logits_to_keep=1).logits[0, -1]
    targets = logits.argsort(descending=True)[: options.targets].tolist()

    seconds: dict[int, list[float]] = {1: [], len(targets): []}
    processor: dict[int, list[float]] = {1: [], len(targets): []}
    tokens: dict[int, int] = {}
    scan_state(model, tokenizer, Problem(state=list(state), candidates=(candidates or [5])[:64]))  # warm up
    for _ in range(options.repeats):  # taking turns, so that a busy machine slows both alike
        for count in seconds:
            chosen = targets[:count]
            found, spent, cpu = common.timed(
                lambda c=chosen: scan_state(model, tokenizer, problem, c), model.device
            )
            seconds[count].append(spent)
            processor[count].append(cpu)
            tokens[count] = found.forward_tokens
    one, many = (min(seconds[count]) for count in (1, len(targets)))
    result = {
        "bench": "shared_scan",
        "targets": len(targets),
        "controls": len(found.controls),
        "seconds_one": one,
        "seconds_many": many,
        "ratio_seconds": many / one,
        "ratio_processor_seconds": min(processor[len(targets)]) / min(processor[1]),
        "ratio_forward_tokens": tokens[len(targets)] / tokens[1],
        "reached": len(found.reachable()),
    }
    line = (
        f"{len(targets)} targets cost {many / one:.3f} times one in seconds (best of {options.repeats}), "
        f"{result['ratio_processor_seconds']:.3f} times in processor time and "
        f"{result['ratio_forward_tokens']:.3f} times in forward tokens"
    )
    common.report(result, [line], options.out)


if __name__ == "__main__":
    main()

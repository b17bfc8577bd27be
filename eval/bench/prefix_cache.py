"""How much of a second turn does vLLM's prefix cache save?

Every conversation asks a word problem, takes the model's reply, and asks it to look again, as a RISE
rollout does. What turn 1 computed (prompt and reply) begins the prompt of turn 2; only whole blocks of
it can be reused. Printed: the share of turn-2 prompt tokens that came from the cache, beside the ceiling,
which is the share that turn 1 had computed.

    python eval/bench/prefix_cache.py
    python eval/bench/prefix_cache.py --model qwen2.5-7b --conversations 256 --json
"""

import argparse
import json
import random
import sys
import time

from llmctl.sampling import Settings, open_sampler
from llmctl.sampling.common import render

INSTRUCTION = "Solve the problem step by step and end with the line 'The answer is N'."
FEEDBACK = "Your answer may be wrong. Look for the mistake and write the corrected solution."
PROBLEM = (
    "A shop has {a} boxes with {b} pens in each. In the morning {c} pens are sold, and in the afternoon "
    "a delivery brings {d} more boxes of the same size. How many pens does the shop have in the evening?"
)


def main() -> None:
    options = parse()
    problems = make_problems(options.conversations, options.seed)
    with open_sampler(options.model, engine="vllm") as sampler:
        result = measure(sampler, problems, Settings(max_tokens=options.max_tokens, seed=options.seed))
    line = (
        f"{result['model']}: {result['hit_rate']:.1%} of {result['turn2_prompt_tokens']} turn-2 prompt "
        f"tokens came from the cache (ceiling {result['ceiling']:.1%}, {result['conversations']} "
        f"conversations, blocks of {result['block_tokens']} tokens, seed {options.seed})"
    )
    if options.json:
        print(json.dumps(result | {"seed": options.seed}, indent=2))
    print(line, file=sys.stderr if options.json else sys.stdout)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="smollm2-135m", help="alias, folder or Hub name")
    parser.add_argument("--conversations", type=int, default=16)
    parser.add_argument("--max-tokens", type=int, default=64, help="of each reply")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="the whole result on stdout, the line on stderr")
    return parser.parse_args()


def make_problems(count: int, seed: int) -> list[list[dict]]:
    """Conversations of one user turn; no two problems are alike."""
    draw = random.Random(seed)
    numbers = draw.sample(range(10, 10 * count + 10), count)
    texts = [
        PROBLEM.format(a=a, b=draw.randint(6, 24), c=draw.randint(5, 50), d=draw.randint(2, 9))
        for a in numbers
    ]
    return [[{"role": "user", "content": f"{text}\n{INSTRUCTION}"}] for text in texts]


def measure(sampler, problems: list[list[dict]], settings: Settings) -> dict:
    """Run both turns and compare what turn 2 needed with what it computed."""
    start = time.perf_counter()
    replies = [reply[0] for reply in sampler.chat(problems, settings)]
    first = sampler.usage.snapshot()
    again = [
        [
            *problem,
            {"role": "assistant", "content": reply.text},
            {"role": "user", "content": f"{FEEDBACK}\n{INSTRUCTION}"},
        ]
        for problem, reply in zip(problems, replies, strict=True)
    ]
    sampler.chat(again, settings)
    second = sampler.usage.since(first)
    known = [
        common_prefix(
            [*render(sampler.tokenizer, problem), *reply.token_ids], render(sampler.tokenizer, turn)
        )
        for problem, reply, turn in zip(problems, replies, again, strict=True)
    ]
    return {
        "model": sampler.info.model,
        "conversations": len(problems),
        "turn1_prompt_tokens": first.prompt_tokens,
        "turn1_cached_tokens": first.cached_tokens,
        "turn1_reply_tokens": first.completion_tokens,
        "turn2_prompt_tokens": second.prompt_tokens,
        "turn2_cached_tokens": second.cached_tokens,
        "hit_rate": second.cached_tokens / second.prompt_tokens,
        "ceiling": sum(known) / second.prompt_tokens,
        "block_tokens": sampler.info.details["block_tokens"],
        "seconds": round(time.perf_counter() - start, 2),
    }


def common_prefix(first: list[int], second: list[int]) -> int:
    """Tokens that both begin with."""
    pairs = zip(first, second, strict=False)
    return next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(first), len(second)))


if __name__ == "__main__":
    main()

"""How well does the demo's vision-language model describe images that it has not seen?

The model is made first where it is not in the cache. Printed for each question: the share of greedy
descriptions that name category, colour and pattern rightly, with 95 % Wilson intervals. The images have
the catalogue's size, and other seeds than the training images.

    python eval/bench/demo_vision.py
    python eval/bench/demo_vision.py --pictures 400 --seed 7 --json
"""

import argparse
import json
import sys

from llmctl.demo.measure import ask_about_pictures, count_right, held_out_pictures
from llmctl.demo.vision import demo_model_report, ensure_demo_model
from llmctl.msr import prompts

QUESTIONS = {
    "the one that item summaries ask": prompts.ITEM,
    "one that it was not taught": "Please tell me what you see here.",
}


def main() -> None:
    options = parse()
    folder = ensure_demo_model(quiet=options.json)
    looks, pictures = held_out_pictures(options.pictures, options.seed)
    found = {
        name: count_right(looks, ask_about_pictures(folder, pictures, question))
        for name, question in QUESTIONS.items()
    }
    if options.json:
        shares = {name: {key: one.to_dict() for key, one in each.items()} for name, each in found.items()}
        print(json.dumps({"seed": options.seed, "names_rightly": shares}, indent=2))
    for name, each in found.items():
        for attribute, estimate in each.items():
            line = f"{name}: {attribute} {estimate.format()} (seed {options.seed})"
            print(line, file=sys.stderr if options.json else sys.stdout)
    print(f"taught in {sum(demo_model_report(folder)['seconds'].values()):.0f} s", file=sys.stderr)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pictures", type=int, default=200)
    parser.add_argument("--seed", type=int, default=2, help="of the pictures")
    parser.add_argument("--json", action="store_true", help="the whole result on stdout, the lines on stderr")
    return parser.parse_args()


if __name__ == "__main__":
    main()

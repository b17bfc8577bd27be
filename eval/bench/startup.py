"""Seconds until `llmctl --help` answers, and what it and `import llmctl` load.

    python eval/bench/startup.py --rounds 5

Each round is a process of its own; the figure is the median. The target is under 1 s, and neither torch nor
any other heavy package loaded.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time

HEAVY = ("torch", "transformers", "trl", "peft", "vllm", "datasets", "matplotlib", "ray", "gradio")
IMPORT = f"import llmctl, sys; print([m for m in {HEAVY!r} if m in sys.modules])"
HELP = f"""
import sys
from llmctl.cli import main
try:
    main(["--help"])
except SystemExit:
    print([m for m in {HEAVY!r} if m in sys.modules], file=sys.stderr)
"""


def seconds(command: list[str]) -> float:
    began = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - began


def loaded(code: str, stream: str) -> list[str]:
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    names: list[str] = json.loads(getattr(done, stream).strip().splitlines()[-1].replace("'", '"'))
    return names


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="processes of each kind")
    options = parser.parse_args()
    commands = {
        "help": [sys.executable, "-m", "llmctl", "--help"],
        "import": [sys.executable, "-c", "import llmctl"],
        "python": [sys.executable, "-c", "pass"],
    }
    medians = {
        name: statistics.median(seconds(command) for _ in range(options.rounds))
        for name, command in commands.items()
    }
    heavy = {"help": loaded(HELP, "stderr"), "import": loaded(IMPORT, "stdout")}
    print(
        f"llmctl --help {medians['help']:.2f} s, import llmctl {medians['import']:.2f} s, "
        f"an empty Python {medians['python']:.2f} s; heavy packages loaded: "
        f"{', '.join({*heavy['help'], *heavy['import']}) or 'none'}"
    )
    print(json.dumps({"seconds": medians, "heavy": heavy, "rounds": options.rounds}))


if __name__ == "__main__":
    main()

"""`python -m llmctl.training.comparison job.json`: one unit of a comparison in a process of its own."""

import sys

from llmctl.training.comparison.unit import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

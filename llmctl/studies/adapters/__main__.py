"""`python -m llmctl.studies.adapters job.json`: one unit of a comparison in a process of its own."""

import sys

from llmctl.studies.adapters.unit import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

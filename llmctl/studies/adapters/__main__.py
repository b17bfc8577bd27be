"""`python -m llmctl.studies.adapters job.json`: one unit of a comparison in its own process."""

import sys

from llmctl.studies.adapters.unit_process import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

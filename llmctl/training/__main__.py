"""`python -m llmctl.training job.json`: one `train` call from a file, also under `accelerate launch`.

Progress goes to stdout as JSON lines; a user's mistake is one line on stderr and exit code 2.
"""

from __future__ import annotations

import os
import sys

from llmctl.errors import UserError


def main() -> int:
    """Run the job file named on the command line."""
    from llmctl.training.launcher import (
        ERROR_PREFIX,
        STOP_WITH_PARENT,
        USER_ERROR,
        print_step,
        read_job,
        stop_with_parent,
    )
    from llmctl.trust.permissions import take_arguments

    try:
        files = [argument for argument in take_arguments(sys.argv[1:]) if argument != STOP_WITH_PARENT]
        if len(files) != 1:
            raise UserError(f"{len(files)} files given, but one is needed: the job file")
        if STOP_WITH_PARENT in sys.argv:
            stop_with_parent()
        job = read_job(files[0])
        from llmctl.training.run import train

        train(
            job.model,
            job.rows,
            job.settings,
            job.output,
            init_adapter=job.init_adapter,
            eval_rows=job.eval_rows,
            resume=job.resume,
            progress=print_step,
        )
    except UserError as error:
        print(f"{ERROR_PREFIX}{error}", file=sys.stderr)
        sys.stderr.flush()
        return USER_ERROR
    return 0


if __name__ == "__main__":
    code = main()
    if code and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        os._exit(code)  # an orderly end would wait for processes that wait for this one
    sys.exit(code)

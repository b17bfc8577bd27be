"""`python -m llmctl.training job.json`: one `train` call from a file, also under `accelerate launch`.

Progress goes to stdout as JSON lines; a user's mistake is one line on stderr and exit code 2.
"""

from __future__ import annotations

import json
import os
import sys

from llmctl.errors import UserError


def main() -> int:
    """Run the job file named on the command line."""
    from llmctl.training.launcher import ERROR_PREFIX, USER_ERROR, read_job

    try:
        if len(sys.argv) != 2:
            raise UserError(f"{len(sys.argv) - 1} arguments given, but one is needed: the job file")
        job = read_job(sys.argv[1])
        from llmctl.training.run import train

        train(
            job.model,
            job.rows,
            job.settings,
            job.output,
            init_adapter=job.init_adapter,
            eval_rows=job.eval_rows,
            resume=job.resume,
            progress=_print_step,
        )
    except UserError as error:
        print(f"{ERROR_PREFIX}{error}", file=sys.stderr)
        sys.stderr.flush()
        return USER_ERROR
    return 0


def _print_step(step: int, total: int, loss: float) -> None:
    print(json.dumps({"step": step, "total": total, "loss": loss}), flush=True)


if __name__ == "__main__":
    code = main()
    if code and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        os._exit(code)  # an orderly end would wait for processes that wait for this one
    sys.exit(code)

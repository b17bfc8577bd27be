"""Train a job in this process and kill it with SIGKILL: `python killed.py job.json step 3` or `save 2`."""

import os
import signal
import sys

from transformers import TrainerCallback

from llmctl.training.launcher import read_job
from llmctl.training.run import train
from llmctl.training.weighted import WeightedTrainer


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class DieAtStep(TrainerCallback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            die()


class DieWhileSaving:
    """Dies in the given save, after the weights and before the optimizer."""

    def __init__(self, number: int) -> None:
        self.left = number
        self.save = WeightedTrainer._save_optimizer_and_scheduler

    def __call__(self, trainer, folder) -> None:
        self.left -= 1
        if self.left == 0:
            die()
        self.save(trainer, folder)


if __name__ == "__main__":
    path, where, number = sys.argv[1], sys.argv[2], int(sys.argv[3])
    callbacks = []
    if where == "step":
        callbacks = [DieAtStep(number)]
    else:
        hook = DieWhileSaving(number)
        WeightedTrainer._save_optimizer_and_scheduler = lambda trainer, folder: hook(trainer, folder)
    job = read_job(path)
    train(job.model, job.rows, job.settings, job.output, callbacks=callbacks)

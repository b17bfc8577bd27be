"""The one supervised trainer: weighted examples, loss on the last response, every adapter by name.

    from llmctl.training import TrainSettings, train

    rows = [{"messages": [...], "weight": 1.7}, ...]
    result = train("smollm2-135m", rows, TrainSettings(adapter="lora", learning_rate=1e-3), "out")
    result.output, result.losses[-1]

`launch` runs the same job on several GPUs or machines through `accelerate launch`.
"""

from llmctl.lazy import lazy_names
from llmctl.training.adapters.lora import LoraSettings
from llmctl.training.config import DistributedSettings, SaveSettings, TrainJob, TrainSettings
from llmctl.training.result import TrainResult

__all__ = [
    "DistributedSettings",
    "LoraSettings",
    "SaveSettings",
    "TrainJob",
    "TrainResult",
    "TrainSettings",
    "launch",
    "train",
    "write_job",
]

_HOMES = {"train": "run", "launch": "launcher", "write_job": "launcher"}

__getattr__ = lazy_names(__name__, _HOMES)

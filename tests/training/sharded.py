"""A training job under FSDP2 on CPU processes: run by `accelerate launch` in place of `-m llmctl.training`.

Without a GPU, accelerate takes data parallelism whatever its configuration says. FSDP2 itself works on CPU,
so the one thing that is changed here is accelerate's choice; it prints the share of weights it then holds.
"""

import runpy
import sys
from typing import Any

import accelerate.accelerator
from accelerate.state import AcceleratorState, PartialState
from accelerate.utils import DistributedType
from torch.distributed.tensor import DTensor

MARK = "held here: "
choose, prepare = AcceleratorState.__init__, accelerate.accelerator.fsdp2_prepare_model


def choose_fsdp(self: Any, *args: Any, fsdp_plugin: Any = None, **kwargs: Any) -> None:
    choose(self, *args, fsdp_plugin=fsdp_plugin, **kwargs)
    if self.distributed_type == DistributedType.MULTI_CPU:
        self.distributed_type, self.fsdp_plugin = DistributedType.FSDP, fsdp_plugin
        PartialState._shared_state["distributed_type"] = self.distributed_type


def prepare_and_tell(*args: Any) -> Any:
    model = prepare(*args)
    shards = [p for p in model.parameters() if isinstance(p, DTensor)]
    held, whole = sum(p.to_local().numel() for p in shards), sum(p.numel() for p in model.parameters())
    print(f"{MARK}{held / whole:.3f}", flush=True)
    return model


AcceleratorState.__init__ = choose_fsdp
accelerate.accelerator.fsdp2_prepare_model = prepare_and_tell
sys.argv[0] = "llmctl.training"
runpy.run_module("llmctl.training", run_name="__main__")

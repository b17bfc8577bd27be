"""Peak memory of one training, from the counter of CUDA or of the Linux kernel.

On CUDA: the most that torch has held at once. On CPU: how far the process's resident memory rose above what
it held before the model was loaded (its libraries), at its highest during training. Both hold weights,
adapter, gradients, optimizer and activations, and neither holds what loading needed for a moment: the high
water mark is reset when training begins. The kernel keeps that mark, so no peak is missed. The training needs
its own process, because an allocator reuses memory of earlier work without raising the mark.
"""

from __future__ import annotations

import re
from pathlib import Path

MIB = 2**20
_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class PeakMemory:
    """A meter of peak memory. Create it before the model is loaded."""

    def __init__(self) -> None:
        import torch

        self.is_cuda = torch.cuda.is_available()
        self._before = 0 if self.is_cuda else _status("VmRSS")
        self._can_reset = True

    def reset(self) -> None:
        """Forget earlier peaks."""
        if self.is_cuda:
            import torch

            torch.cuda.reset_peak_memory_stats()
            return
        try:
            _CLEAR.write_text("5")  # sets VmHWM back to VmRSS: proc(5)
        except OSError:
            self._can_reset = False

    def peak(self) -> float | None:
        """The peak since `reset`, in MiB; None if the system does not report it."""
        if self.is_cuda:
            import torch

            return float(torch.cuda.max_memory_allocated()) / MIB
        highest = _status("VmHWM")
        if not self._can_reset or highest is None or self._before is None:
            return None
        return (highest - self._before) / MIB


def _status(field: str) -> int | None:
    """Bytes of a field of Linux' /proc/self/status."""
    try:
        found = re.search(rf"^{field}:\s+(\d+) kB", _STATUS.read_text(), re.MULTILINE)
    except OSError:
        return None
    return int(found[1]) * 1024 if found else None

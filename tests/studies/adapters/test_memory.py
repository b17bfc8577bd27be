"""The meter sees a peak that is gone again, and none from before it was set."""

import subprocess
import sys

import pytest

from llmctl.studies.adapters.memory import PeakMemory

# bytearray of this size is mapped by itself and given back when it goes
SCRIPT = """
import torch
from llmctl.studies.adapters.memory import PeakMemory
meter = PeakMemory()
early = bytearray(b"x") * (300 << 20)
del early
meter.reset()
low = meter.peak()
late = bytearray(b"x") * (100 << 20)
del late
print(low, meter.peak())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's high water mark is Linux'")
def test_a_peak_that_is_gone_counts_and_an_earlier_one_does_not():
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    low, high = map(float, done.stdout.split())
    assert low < 20 and 95 <= high - low <= 130


def test_where_the_mark_can_not_be_set_back_there_is_no_figure(monkeypatch, tmp_path):
    from llmctl.studies.adapters import memory

    meter = PeakMemory()
    meter.is_cuda = False
    monkeypatch.setattr(memory, "_CLEAR", tmp_path / "no folder" / "clear_refs")
    meter.reset()
    assert meter.peak() is None

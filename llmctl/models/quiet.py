"""Keep libraries from talking while they load and train.

The settings of transformers are put back afterwards; bitsandbytes stays at errors, because it warns on
every product of int8 matrices as long as a model lives.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """No progress bars and no warnings of transformers in this block; none of bitsandbytes from here on."""
    # it also looks for an optional kernel when it is first imported, which PEFT does
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    from transformers.utils import logging as transformers_logging

    level = transformers_logging.get_verbosity()
    had_bars = transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(level)
        if had_bars:
            transformers_logging.enable_progress_bar()

"""The data of a training: the source of rows, their checks, and their way to tokens and labels."""

from llmctl.training.data.columns import Prepared, collect_columns, prepare
from llmctl.training.data.encoding import IGNORED, encode_row
from llmctl.training.data.rows import fingerprint_rows, read_rows

__all__ = [
    "IGNORED",
    "Prepared",
    "collect_columns",
    "encode_row",
    "fingerprint_rows",
    "prepare",
    "read_rows",
]

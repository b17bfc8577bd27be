import pytest

from .samples import GSM8K_ROWS, JSONL_ROWS, MATH_ROWS, SVAMP_ROWS, write_rows


@pytest.fixture(scope="session")
def data_folder(tmp_path_factory):
    """A folder with one JSONL file a file-based task."""
    folder = tmp_path_factory.mktemp("data")
    for name, rows in {
        "gsm8k": GSM8K_ROWS,
        "svamp": SVAMP_ROWS,
        "math": MATH_ROWS,
        "jsonl": JSONL_ROWS,
    }.items():
        write_rows(folder / f"{name}.jsonl", rows)
    return folder

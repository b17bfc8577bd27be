import pytest

from llmctl.cli import main


class Outcome:
    def __init__(self, code, out, err):
        self.code, self.out, self.err = code, out, err


@pytest.fixture
def llmctl(capsys):
    """Run the command line in this process."""

    def run(*arguments):
        with pytest.raises(SystemExit) as caught:
            main(list(arguments))
        streams = capsys.readouterr()
        return Outcome(caught.value.code, streams.out, streams.err)

    return run

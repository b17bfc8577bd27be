import io

import pytest

from llmctl.runs.progress import format_rate, format_seconds, progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test sets."""
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    return now


def test_elsewhere_than_on_a_terminal_a_line_comes_every_ten_seconds_and_at_the_end(clock):
    stream = io.StringIO()
    with progress(100, "collect", "episodes", stream=stream) as bar:
        for _ in range(50):
            clock[0] += 0.5
            bar.advance(2)
    assert stream.getvalue().splitlines() == [
        "collect: 40/100 episodes, 4 episodes/s, 0:15 left",
        "collect: 80/100 episodes, 4 episodes/s, 5.0 s left",
        "collect: 100/100 episodes, 4 episodes/s, 0:25 in total",
    ]


def test_what_was_done_before_does_not_enter_the_rate(clock):
    stream = io.StringIO()
    with progress(1000, "collect", "episodes", done=900, stream=stream) as bar:
        clock[0] += 20
        bar.advance(10, note="loss 1.21")
        assert bar.rate == 0.5 and bar.left_s == 180
    assert stream.getvalue().startswith("collect: 910/1000 episodes, 0.5 episodes/s, 3:00 left, loss 1.21\n")


def test_without_a_total_there_is_no_time_left(clock):
    stream = io.StringIO()
    with progress(None, "read", "rows", stream=stream) as bar:
        clock[0] += 2
        bar.advance(5)
    assert stream.getvalue() == "read: 5 rows, 2.5 rows/s\n"


def test_the_last_line_comes_also_when_the_work_breaks_off(clock):
    stream = io.StringIO()
    with pytest.raises(KeyboardInterrupt), progress(10, "collect", "episodes", stream=stream) as bar:
        bar.advance()
        raise KeyboardInterrupt
    assert stream.getvalue().startswith("collect: 1/10 episodes")


def test_quiet_says_nothing_and_counts(capsys):
    with progress(10, "collect", "episodes", quiet=True) as bar:
        bar.advance(3)
    assert bar.done == 3
    assert capsys.readouterr() == ("", "")


def test_stdout_stays_clean(capsys):
    with progress(1, "collect", "episodes") as bar:
        bar.advance()
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("collect: 1/1 episodes")


def test_a_terminal_gets_a_bar_with_rate_and_time_left(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    stream = Terminal()
    with progress(10, "collect [a]", "episodes", stream=stream) as bar:
        bar.advance(4, note="loss 1.21")
        assert bar.done == 4 and bar.rate > 0
    shown = stream.getvalue()
    assert "collect [a]: 4/10 episodes" in shown and "left" in shown and "loss 1.21" in shown


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0.0 s"), (9.94, "9.9 s"), (59.6, "1:00"), (75, "1:15"), (7509, "2:05:09")]
)
def test_lengths_of_time(seconds, text):
    assert format_seconds(seconds) == text


def test_slow_work_is_counted_by_the_minute():
    assert format_rate(3.456, "episodes") == "3.46 episodes/s"
    assert format_rate(0.05, "episodes") == "3 episodes/min"

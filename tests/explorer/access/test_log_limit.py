import logging

from llmctl.explorer.access.log_limit import LogLimit


class Clock:
    seconds = 0.0

    def __call__(self):
        return self.seconds


def make_logger(limit):
    """A logger of its own, and the messages that pass its filter."""
    logger, messages = logging.Logger("limited"), []
    logger.addFilter(limit)
    handler = logging.Handler()
    handler.emit = lambda record: messages.append(record.getMessage())
    logger.addHandler(handler)
    return logger, messages


def test_so_many_records_pass_per_minute_and_the_next_minute_says_how_many_did_not():
    clock = Clock()
    logger, messages = make_logger(LogLimit(per_minute=3, now=clock))
    for number in range(1000):
        logger.warning("record %d", number)
    assert messages == ["record 0", "record 1", "record 2"]
    clock.seconds = 61.0
    logger.warning("later")
    logger.warning("last")
    assert messages[3:] == ["later (997 records before this one were left out)", "last"]


def test_a_long_message_is_cut():
    logger, messages = make_logger(LogLimit())
    logger.error("%s", "x" * 10**6)
    assert len(messages[0]) == 2_000

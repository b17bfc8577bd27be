"""The compact set of digests."""

import random

from llmctl.tasks.seen import Seen


def test_it_tells_new_from_met_as_a_set_does():
    draw, seen, reference = random.Random(0), Seen(), set()
    for _ in range(5000):
        digest = draw.choice((draw.getrandbits(64), draw.randrange(1, 400), draw.randrange(1, 400) << 32))
        assert seen.add(digest) == (digest not in reference)
        reference.add(digest)
    assert len(seen) == len(reference)


def test_the_ends_of_the_range_are_digests_too():
    seen = Seen()
    assert [seen.add(value) for value in (0, 2**64 - 1, 0, 2**64 - 1)] == [True, True, False, False]


def test_it_takes_at_most_24_bytes_a_digest():
    seen, draw = Seen(), random.Random(1)
    for _ in range(50_000):
        seen.add(draw.getrandbits(64))
    assert seen._table.buffer_info()[1] * 8 < 24 * 50_000

from itertools import count, islice

from llmctl.runs.chunks import cut


def test_the_last_chunk_may_be_shorter():
    assert list(cut(range(5), 2)) == [[0, 1], [2, 3], [4]]
    assert list(cut([], 2)) == []


def test_a_stream_without_an_end_is_cut_as_it_comes():
    assert list(islice(cut(count(), 3), 2)) == [[0, 1, 2], [3, 4, 5]]

"""The interval of a paired difference: exact coverage by enumeration, limits, and the effect of clusters."""

import math
from itertools import product

import pytest

from llmctl.reach.curves.paired import bonett_price, rate_difference
from llmctl.runs.stats import Z


def outcomes(gains, losses, n):
    """Two lists of which the second counts `gains` pairs that the first does not, and the other way round."""
    first = [False] * gains + [True] * losses + [False] * (n - gains - losses)
    second = [True] * gains + [False] * losses + [False] * (n - gains - losses)
    return first, second


def coverage(gain, loss, n):
    """The exact probability that the interval of n independent pairs holds the true difference."""
    held = 0.0
    for gains, losses in product(range(n + 1), repeat=2):
        if gains + losses > n:
            continue
        found = rate_difference(*outcomes(gains, losses, n), range(n))
        if found.low <= gain - loss <= found.high:
            ways = math.factorial(n) / math.prod(map(math.factorial, (gains, losses, n - gains - losses)))
            held += ways * gain**gains * loss**losses * (1 - gain - loss) ** (n - gains - losses)
    return held


@pytest.mark.parametrize("n", [4, 8, 16])
@pytest.mark.parametrize("rates", [(0.05, 0.05), (0.1, 0.0), (0.2, 0.1), (0.3, 0.3), (0.4, 0.05), (0.6, 0.1)])
def test_few_pairs_keep_the_coverage(n, rates):
    assert coverage(*rates, n) > 0.925


@pytest.mark.parametrize("n", [2, 3, 16])
def test_without_discordant_pairs_the_interval_has_a_width(n):
    found = rate_difference(*outcomes(0, 0, n), range(n))
    assert found.value == 0 and found.low < 0 < found.high


@pytest.mark.parametrize("states", [2, 8, 16])
@pytest.mark.parametrize("counts", [(16, 0), (0, 16), (9, 0), (8, 8), (1, 0)])
def test_the_interval_lies_within_the_possible_and_holds_the_value(states, counts):
    found = rate_difference(*outcomes(*counts, 16), [place % states for place in range(16)])
    assert -1 <= found.low <= found.value <= found.high <= 1


def test_the_bounds_are_those_of_the_paper():
    # 3 gains and 1 loss of 10: (4 - 2) / 12 and 1.96 standard errors of sqrt((6/12 - (2/12)^2) / 12).
    low, high = bonett_price(3, 1, 10, 1.96)
    half = 1.96 * math.sqrt((0.5 - 1 / 36) / 12)
    assert (low, high) == (pytest.approx(1 / 6 - half), pytest.approx(1 / 6 + half))


@pytest.mark.parametrize("counts", [(0, 0), (4, 0), (3, 1), (2, 2), (12, 0)])
@pytest.mark.parametrize("size", [2, 3, 6])
def test_clusters_never_narrow_the_interval(counts, size):
    n = 12
    plain_low, plain_high = bonett_price(*counts, n, Z)
    for clusters in ([place // size for place in range(n)], [place % (n // size) for place in range(n)]):
        found = rate_difference(*outcomes(*counts, n), clusters)
        assert found.high - found.low >= plain_high - plain_low - 1e-12


def test_alike_pairs_of_a_state_count_less_than_unlike_ones():
    alike = rate_difference(*outcomes(4, 0, 12), [place // 4 for place in range(12)])
    mixed = rate_difference(*outcomes(4, 0, 12), [place % 4 for place in range(12)])
    assert alike.high - alike.low > mixed.high - mixed.low


def test_one_cluster_gives_no_bounds_and_unequal_lengths_are_refused():
    assert rate_difference(*outcomes(1, 0, 3), ["s"] * 3).low is None
    with pytest.raises(ValueError, match="2 first, 1 second outcomes and 2 clusters"):
        rate_difference([True, False], [True], [0, 1])

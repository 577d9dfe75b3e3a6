"""What the benchmarks count, against counting one by one."""

import pytest

from benchmarks.attention import Shape
from benchmarks.memory import exponent
from benchmarks.roofline import Bound, Peak, bound


@pytest.mark.parametrize("window", [0, 1, 3, 7])
def test_pairs_of_queries_and_keys_that_meet(window):
    meet = sum(1 for q in range(7) for k in range(q + 1) if window == 0 or q - k < window)
    assert Shape(2, 7, 3, 4, window).pairs == 2 * 3 * meet


def test_the_slower_half_bounds():
    peak = Peak(flops=100.0, bandwidth=10.0)
    assert bound(400, 20, peak) == Bound(4.0, "operations")
    assert bound(400, 80, peak) == Bound(8.0, "bytes")


def test_the_exponent_is_of_the_last_doubling():
    assert exponent([1, 2, 4], [7, 3, 12]) == pytest.approx(2)

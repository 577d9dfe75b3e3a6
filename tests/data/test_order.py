"""The computed order is a permutation, and looks like a random one."""

import numpy as np
import pytest

from data import order

PRIMES = [2, 3, 5, 7, 97, 8191, 65537, 104729, 1_000_003]
POWERS = [2**k + d for k in range(1, 21) for d in (-1, 0, 1)]


@pytest.mark.parametrize("key", [0, 1, 2**64 - 1])
def test_every_index_comes_exactly_once(key):
    for n in sorted({*range(1, 300), *PRIMES, *POWERS}):
        images = order.permute(np.arange(n), n, key)
        assert (np.bincount(images, minlength=n) == 1).all(), n


def test_an_index_costs_no_others():
    n = 1_000_003
    whole = order.permute(np.arange(n), n, 5)
    some = np.array([[0, n - 1], [77, 500_000]])
    np.testing.assert_array_equal(order.permute(some, n, 5), whole[some])


@pytest.mark.parametrize("n", [2**17, 200_003, 2**20, 2**20 + 1, 1_500_000])
def test_looks_random(n):
    images = order.permute(np.arange(n), n, order.key(0, "train", 0))
    for lag in (1, 2):
        correlation = np.corrcoef(images[lag:], images[:-lag])[0, 1]
        assert abs(correlation) < 4 / np.sqrt(n)
    differences = np.diff(images) % n
    assert len(np.unique(differences)) / n == pytest.approx(1 - np.exp(-1), abs=0.003)
    alternates = (images[1:] + images[:-1]) % 2
    assert alternates.mean() == pytest.approx(0.5, abs=2 / np.sqrt(n))
    # Positions of a batch in 64 equal bins: chi squared over 63 degrees of freedom is near one.
    batches = images[: n // 4096 * 4096].reshape(-1, 4096) * 64 // n
    counts = np.stack([np.bincount(batch, minlength=64) for batch in batches])
    chi_squared = ((counts - 64) ** 2 / 64).sum(axis=1).mean() / 63
    assert chi_squared == pytest.approx(1, abs=0.1)


def test_epochs_seeds_and_splits_are_unrelated():
    n = 2**18 + 1
    names = [(0, "train", 0), (0, "train", 1), (1, "train", 0), (0, "validation", 0)]
    orders = [order.permute(np.arange(n), n, order.key(*name)) for name in names]
    correlations = np.corrcoef(orders) - np.eye(len(orders))
    assert np.abs(correlations).max() < 4 / np.sqrt(n)
    assert all((a == b).mean() < 10 / n for i, a in enumerate(orders) for b in orders[:i])


def test_the_order_is_pinned():
    """Runs resume with later versions: what a key and an order are does not change."""
    assert order.key(0, "train", 1) == 439936155286824091
    assert order.permute(np.arange(10), 10, 1).tolist() == [6, 4, 5, 3, 1, 9, 8, 7, 0, 2]
    assert order.permute(np.arange(6), 20, 1).tolist() == [6, 1, 13, 11, 12, 0]


@pytest.mark.parametrize("outside", [-1, 10])
def test_indices_outside_are_refused(outside):
    with pytest.raises(ValueError, match="must lie in"):
        order.permute(np.array([outside]), 10, 0)

"""The arithmetic behind the tables of benchmarks/cost.py and benchmarks/recurrence.py."""

import argparse

import numpy as np
import pytest

import model
from benchmarks.cost import power
from benchmarks.recurrence_plot import crossings, half
from benchmarks.recurrence_train import OURS, sized


def test_a_power_is_found_with_the_standard_error_of_least_squares():
    x = np.array([1.0, 2, 4, 8, 16])
    y = 3 * x**1.5 * np.exp([0.1, -0.2, 0, 0.3, -0.1])
    (slope, _), covariance = np.polyfit(np.log(x), np.log(y), 1, cov=True)
    found = power(x, y)
    assert found.slope == pytest.approx(slope)
    assert found.error == pytest.approx(covariance[0, 0] ** 0.5)


def test_two_series_cross_where_their_logarithms_do():
    assert crossings({10: 1.0, 1000: 100.0}, [10.0, 10.0]) == [100]
    assert crossings({10: 1.0, 1000: 100.0}, [10.0, 1000.0]) == []


def test_half_the_time_grows_with_length_where_the_slope_makes_up_the_start():
    assert half({n: 6 + 0.02 * n for n in (32, 512, 8192)}) == pytest.approx(300)


def test_the_lstm_is_as_large_or_as_costly_as_the_transformer():
    options = argparse.Namespace(layers=2, width=128, window=256)
    full, large, costly = (
        model.counts(sized(options, name, 2048)) for name in ("full", OURS, "LSTM operations")
    )
    assert large.parameters == pytest.approx(full.parameters, rel=0.02)
    operations = [each.flops_per_token("strict") for each in (costly, full)]
    assert operations[0] == pytest.approx(operations[1], rel=0.05)
    assert costly.parameters > large.parameters

"""Decisions from evaluations: each rule where it must, and not before."""

import math
from typing import Any

import numpy as np
import pytest

from scaling.monitor.forecast import Curve, forecast
from scaling.stopping import Evaluation, Stop, decide


def evaluations(losses, error=0.0, every=100):
    return [
        Evaluation(step, 1000.0 * step, loss, error)
        for step, loss in zip(range(every, every * len(losses) + 1, every), losses, strict=True)
    ]


def first_stop(past, **limits):
    """Where a run would end that asks after every evaluation."""
    for count in range(1, len(past) + 1):
        if stop := decide(past[:count], **limits):
            return stop
    return None


FALLING = [2 + 3 * k**-0.5 for k in range(1, 31)]


def test_without_limits_nothing_ends_a_run():
    assert first_stop(evaluations(FALLING), tokens=1e6) is None
    assert decide([], target=9.0, patience=1, min_gain=9.0) is None


def test_the_target_ends_it_at_the_first_evaluation_that_reaches_it():
    stop = first_stop(evaluations(FALLING), target=FALLING[8])
    assert stop == Stop("target", 900, "the validation loss of 3.0000 has reached the target of 3")
    assert first_stop(evaluations(FALLING), target=FALLING[-1] - 1e-9) is None
    assert first_stop(evaluations([math.nan, math.nan]), target=3.0) is None


def test_patience_counts_evaluations_since_the_last_improvement():
    losses = [3.0, 2.5, 2.6, 2.55, 2.4, 2.5, 2.45, 2.41, 2.3]
    assert first_stop(evaluations(losses), patience=4) is None
    stop = first_stop(evaluations(losses), patience=3)
    assert stop is not None
    assert (stop.rule, stop.step) == ("patience", 800)
    assert "3 evaluations in a row did not lower the validation loss of 2.4000 at step 500" in (
        stop.reason
    )


def test_an_improvement_within_its_error_is_none_until_several_add_up():
    slow = [3 - 0.004 * k for k in range(12)]
    assert first_stop(evaluations(slow, error=0.01), patience=3) is None  # 0.012 in three
    stop = first_stop(evaluations(slow, error=0.01), patience=2)
    assert stop is not None
    assert stop.step == 300


def test_a_loss_that_is_not_finite_is_no_improvement():
    losses = [3.0, math.nan, math.nan, math.nan]
    stop = first_stop(evaluations(losses), patience=3)
    assert stop is not None
    assert stop.step == 400
    assert first_stop(evaluations([math.nan, 3.0, 2.9]), patience=2) is None


def curve(count, total, noise=1e-4):
    """L = 2 + 3 (tokens / 1e5)^-.5, so that what is left to gain is known."""
    noise_n = np.random.default_rng(0).normal(0, noise, count)
    return evaluations([2 + 3 * k**-0.5 + e for k, e in enumerate(noise_n, start=1)])


def test_the_gain_ends_it_where_the_truth_does():
    """Left at evaluation k: 3 (k^-.5 - 60^-.5), below .1 from k = 41 on."""
    past = curve(60, 60)
    assert 3 * (41**-0.5 - 60**-0.5) < 0.1 < 3 * (37**-0.5 - 60**-0.5)
    limits: dict[str, Any] = {"min_gain": 0.1, "tokens": 60e5}
    assert decide(past[:37], **limits) is None
    stop = decide(past[:50], **limits)
    assert stop is not None
    assert (stop.rule, stop.step) == ("min_gain", 5000)
    assert "below min_gain=0.1" in stop.reason
    assert decide(past[:50], min_gain=1e-3, tokens=60e5) is None
    assert decide(past[:9], min_gain=9.0, tokens=60e5) is None  # too few to say


def test_a_rate_that_is_still_to_fall_is_waited_for():
    """The same evaluations: at a constant rate all is over, before a decay nothing is."""
    flat = evaluations([2 + 0.5 * k**-2.0 for k in range(1, 31)])
    constant = np.full(4000, 1e-3)
    decaying = np.concatenate([np.full(3000, 1e-3), np.linspace(1e-3, 1e-5, 1000)])
    limits: dict[str, Any] = {"min_gain": 0.02, "tokens": 4e6}
    assert decide(flat, **limits, eta_t=constant) is not None
    assert decide(flat, **limits, eta_t=decaying) is None


def test_a_run_at_its_end_is_not_stopped_for_having_nothing_left():
    assert decide(curve(60, 60), min_gain=9.0, tokens=60e5) is None


@pytest.mark.slow
@pytest.mark.parametrize(("count", "noise"), [(30, 1e-3), (37, 1e-3), (30, 5e-3), (37, 5e-3)])
def test_noise_delays_the_decision_rather_than_hastens_it(count, noise):
    assert decide(curve(60, 60, noise)[:count], min_gain=0.1, tokens=60e5) is None


def test_the_chance_counts_and_not_the_expectation():
    past = curve(43, 60, noise=5e-3)
    tokens = np.array([each.tokens for each in past])
    losses = np.array([each.loss for each in past])
    end = forecast(Curve(tokens, losses, np.array([each.step for each in past])), 60e5)
    expected, likely = end.now - end.point, end.now - end.at_best(0.1)
    assert likely > 1.1 * expected
    assert decide(past, min_gain=(expected + likely) / 2, tokens=60e5) is None
    assert decide(past, min_gain=1.01 * likely, tokens=60e5) is not None

"""Calibrated intervals hold what comes true where the law does not, and say what widens them."""

import re

import numpy as np
import pytest

from benchmarks import coverage
from configs.schema import InputError
from scaling import laws
from scaling.averaging import average
from scaling.backtest import backtest
from scaling.calibration import forecast, forecasts
from scaling.fit import fit
from scaling.uncertainty import bootstrap
from tests.scaling.test_backtest import TRUTH, grid, table


def said(found, *places, level=0.95):
    """Forecasts with a short bootstrap."""
    return forecasts(found, places, level, draws=bootstrap(found, 50))


def far(ratio, rows):
    """A place of the best shape at so many times the largest compute."""
    c = ratio * float((6 * rows["N"] * rows["D"]).max())
    return {"N": (c / 120) ** 0.5, "D": (c * 20 / 6) ** 0.5}


@pytest.fixture(scope="module")
def true_law():
    rows = table(noise=2e-3, budgets=9)
    return rows, fit(laws.CHINCHILLA, rows)


def test_without_a_departure_the_average_is_the_law():
    rows = table()
    found = fit(laws.CHINCHILLA, rows)
    places = {
        name: np.array([each[name] for each in (far(3, rows), far(20, rows))]) for name in "ND"
    }
    guess = average(found, found.parameters, np.ones(found.n, bool), places)
    np.testing.assert_allclose(np.exp(guess.mean_m), laws.CHINCHILLA.predict(TRUTH, places), 1e-4)
    near, away = np.sqrt(guess.drift_m)
    assert 2 < away / near < (np.log(20) / np.log(3)) ** 1.5  # less: rows are known up to the edge


def test_a_departure_in_the_rows_is_followed_beyond_them():
    rows = table(c=0.1, noise=1e-4, budgets=12)
    found = fit(laws.CHINCHILLA, rows, "squared")
    place = {name: np.array([value]) for name, value in far(20, rows).items()}
    came = laws.CHINCHILLA.predict(TRUTH, place) - 0.1 * np.log(place["N"] * place["D"] / 1e17)
    alone = np.log(found.law.predict(found.parameters, place) / came)[0]
    joined = average(found, found.parameters, np.ones(found.n, bool), place).mean_m - np.log(came)
    assert alone > 0.01
    assert abs(joined[0]) < 0.7 * alone


def test_an_outlier_hardly_moves_the_average():
    rows = table(noise=1e-3)
    place = {name: np.array([value]) for name, value in far(10, rows).items()}
    bad = {**rows, "loss": rows["loss"] * np.where(np.arange(len(rows["N"])) == 22, 1.2, 1.0)}
    means = []
    for each in (rows, bad):
        found = fit(laws.CHINCHILLA, each)
        means.append(average(found, found.parameters, np.ones(found.n, bool), place).mean_m[0])
    assert abs(means[0] - means[1]) < 0.005


def test_a_true_law_is_covered_and_the_interval_grows_with_the_distance(true_law):
    rows, found = true_law
    places = [far(ratio, rows) for ratio in (1.5, 5, 20)]
    guesses = said(found, *places)
    halves = [np.log(guess.upper / guess.lower) / 2 for guess in guesses]
    for guess, place in zip(guesses, places, strict=True):
        assert guess.lower < laws.CHINCHILLA.predict(TRUTH, place) < guess.upper
        assert guess.lower < guess.point < guess.upper
    assert 0.004 < halves[0] < halves[1] < halves[2] < 0.05
    plain = guesses[2].plain
    assert halves[2] > 1.5 * np.log(plain.upper / plain.lower) / 2


def test_a_higher_level_is_wider(true_law):
    rows, found = true_law
    half, most = (said(found, far(5, rows), level=level)[0] for level in (0.5, 0.95))
    ratio = np.log(most.upper / most.lower) / np.log(half.upper / half.lower)
    assert ratio == pytest.approx(1.95996 / 0.67449, 1e-4)  # of normal quantiles


def test_the_reason_names_every_cause_and_the_backtest(true_law):
    rows, found = true_law
    why = said(found, far(10, rows))[0].why
    for cause in (
        "drift of the law",
        "parameters",
        "scatter of single runs",
        "difference of forms",
    ):
        assert cause in why
    assert 98 <= sum(int(share) for share in re.findall(r"(\d+)%[,;]", why)) <= 102
    assert "cutoffs" in why


def test_it_warns_beyond_the_backtest_and_more_so_beyond_thirty_times(true_law):
    rows, found = true_law
    inside, beyond, lost = said(found, far(3, rows), far(25, rows), far(40, rows))
    assert inside.backtested_ratio == pytest.approx(16)
    assert inside.ratio == pytest.approx(3)
    assert inside.warning == ""
    assert "the backtest reaches 16 times" in beyond.warning
    assert "do not rely" in lost.warning


def test_many_places_at_once_are_each_alone(true_law):
    rows, found = true_law
    draws, tested = bootstrap(found, 50), backtest(found)
    places = [far(3, rows), far(12, rows)]
    together = forecasts(found, places, draws=draws, tested=tested)
    alone = forecast(found, places[1], draws=draws, tested=tested)
    assert (alone.lower, alone.upper) == pytest.approx((together[1].lower, together[1].upper))
    assert alone.plain == together[1].plain


@pytest.mark.parametrize("rows", [6, 7, 8])
def test_a_small_table_has_a_wide_interval_and_says_so(rows):
    sizes = {name: column[:rows] for name, column in grid(4, 3).items()}
    noise = np.exp(3e-3 * np.random.default_rng(rows).standard_normal(rows))
    loss = laws.CHINCHILLA.predict(TRUTH, sizes) * noise
    found = fit(laws.CHINCHILLA, {**sizes, "loss": loss})
    guess = said(found, far(5, sizes))[0]
    assert "too few rows for a backtest" in guess.why
    assert "there is no backtest" in guess.warning
    assert 0.01 < np.log(guess.upper / guess.lower) / 2 < 0.2
    assert guess.lower < laws.CHINCHILLA.predict(TRUTH, far(5, sizes)) < guess.upper


def test_laws_of_other_things_have_intervals_too():
    x = np.geomspace(1e6, 1e9, 14)
    scatter = np.exp(2e-3 * np.random.default_rng(0).standard_normal(14))
    for law, column, value in (
        (laws.KAPLAN_N, "N", lambda x: (8e13 / x) ** 0.076),
        (laws.M2, "x", lambda x: 2 + 50 * x**-0.3),
        (laws.POWER, "x", lambda x: 0.1 * x**0.5),
    ):
        found = fit(law, {column: x, law.observed: value(x) * scatter}, "squared")
        guess = said(found, {column: 5e9})[0]
        assert guess.lower < value(5e9) < guess.upper < 1.5 * guess.lower


def test_a_place_that_is_none_is_one_sentence(true_law):
    with pytest.raises(InputError, match="needs D as a positive number"):
        said(true_law[1], {"N": 1e9})


def judged(truths, designs, seeds):
    return [
        coverage.judge(coverage.sweep(truth, design, seed))
        for truth in truths
        for design in designs
        for seed in seeds
    ]


def test_sweeps_whose_truth_has_a_slow_part_are_covered():
    """Few of them: benchmarks/coverage.py has the whole table."""
    done = judged(["- c log C", "+ c log(1 + C)"], ["ratios"], [1])
    assert all(each.calibrated for each in done)
    assert not any(each.plain for each in done)
    assert np.median([each.half for each in done]) < 0.05


@pytest.mark.slow
def test_many_sweeps_are_covered_as_promised():
    misspecified = [truth for truth in coverage.TRUTHS if truth != "the law itself"]
    done = judged(misspecified, coverage.DESIGNS, range(2))
    assert np.mean([each.calibrated for each in done]) >= 0.9
    assert np.mean([each.plain for each in done]) < 0.8
    assert np.median([each.half for each in done]) <= 0.05
    assert np.mean([each.half <= 0.05 for each in done]) >= 0.6


def held_out(rows, ratio, where=0.7):
    """Forecasts of the largest rows from those with at most 1/ratio of their compute."""
    by = 6 * rows["N"] * rows["D"]
    found = fit(laws.CHINCHILLA, {k: v[by <= by.max() / ratio * 1.001] for k, v in rows.items()})
    large = np.flatnonzero(by >= where * by.max())
    guesses = said(found, *({name: float(rows[name][i]) for name in "ND"} for i in large))
    return [(guess, float(rows["loss"][i])) for guess, i in zip(guesses, large, strict=True)]


def covered(pairs):
    return np.mean([guess.lower < came < guess.upper for guess, came in pairs])


def test_gadre_runs_at_12_times_the_compute_and_17_times_the_size_are_covered(gadre):
    """1.4B at 640 tokens a parameter and 6.9B at 20, from models up to .41B."""
    rows = {k: v[gadre["ratio"] >= 20] for k, v in gadre.items()}
    pairs = held_out({name: rows[name] for name in ("N", "D", "loss")}, 10)
    assert len(pairs) == 2
    assert covered(pairs) == 1


@pytest.mark.slow
@pytest.mark.parametrize("ratio", [5, 10, 20])
def test_gemstones_are_covered_where_the_plain_interval_is_not(gemstones, ratio):
    pairs = held_out({name: gemstones[name] for name in ("N", "D", "loss")}, ratio)
    assert covered(pairs) >= 0.9
    assert np.mean([g.plain.lower < came < g.plain.upper for g, came in pairs]) < 0.5

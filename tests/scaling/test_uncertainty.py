"""Intervals agree with the published ones, cover the truth, and say what is not identified."""

import numpy as np
import pytest

from configs.schema import InputError
from scaling import laws
from scaling.fit import fit
from scaling.uncertainty import bootstrap, predict, profile

TRUTH = {"E": 1.8, "A": 480.0, "B": 2100.0, "alpha": 0.35, "beta": 0.37}


def runs(seed: int, noise: float = 5e-3, n: int = 60):
    """Random runs with the losses of TRUTH and relative errors of the size `noise`."""
    random = np.random.default_rng(seed)
    table = {"N": 10 ** random.uniform(7, 10, n), "D": 10 ** random.uniform(9, 12, n)}
    exact = laws.CHINCHILLA.predict(TRUTH, table)
    return {**table, "loss": exact * np.exp(noise * random.standard_normal(n))}


@pytest.fixture(scope="module")
def published(epoch):
    """The fit of the 240 rows with 1000 resamples, shared by the tests that only read it."""
    found = fit(laws.CHINCHILLA, epoch("240"))
    return found, bootstrap(found)


def compare(draws, anchor):
    """Standard errors at the anchor's tolerance, interval ends within a quarter of their width."""
    share = draws.draws["beta"] / (draws.draws["alpha"] + draws.draws["beta"])
    errors = {**draws.standard_errors, "a": float(share.std())}
    for name, expected in anchor["se"].items():
        assert errors[name] == pytest.approx(expected, rel=anchor["tol"]["se_rel"])
    for name, (low, high) in anchor["ci95"].items():
        assert draws.intervals[name] == pytest.approx((low, high), abs=0.1 * (high - low))


def test_bootstrap_of_the_240_rows_log_huber_1e_3(published, anchors):
    compare(published[1], anchors["epoch_bootstrap"])
    assert published[1].failed == 0


@pytest.mark.slow
def test_bootstrap_of_the_240_rows_as_long_as_the_published_one(published, anchors):
    compare(bootstrap(published[0], 4000, seed=1), anchors["epoch_bootstrap"])


def test_intervals_of_a_true_law_cover():
    covered = []
    for seed in range(20):
        found = fit(laws.CHINCHILLA, runs(seed), "squared")
        draws = bootstrap(found, 120, seed=seed)
        low, high = draws.intervals["E"]
        covered.append(low < TRUTH["E"] < high)
    assert sum(covered) >= 16  # of 20 at 95 %: fewer has a chance of 3 in 1000


def test_a_new_run_falls_into_its_interval_about_as_often_as_promised():
    inside = []
    for seed in range(8):
        found = fit(laws.CHINCHILLA, runs(seed), "squared")
        draws = bootstrap(found, 120, seed=seed)
        new = runs(1000 + seed, n=10)
        for row in range(10):
            at = {"N": new["N"][row], "D": new["D"][row]}
            guess = predict(found, at, draws)
            assert guess.lower < guess.point < guess.upper
            inside.append(guess.lower < new["loss"][row] < guess.upper)
    assert 0.88 <= np.mean(inside) <= 1


def test_rows_of_one_curve_resampled_together_give_wider_intervals():
    random = np.random.default_rng(0)
    table = runs(0, noise=0.0, n=24)
    groups = np.repeat(np.arange(24), 5)
    together = {name: np.repeat(column, 5) for name, column in table.items()}
    together["D"] = together["D"] * np.tile([0.6, 0.7, 0.8, 0.9, 1.0], 24)
    shared = np.exp(5e-3 * random.standard_normal(24))[groups]
    together["loss"] = laws.CHINCHILLA.predict(TRUTH, together) * shared
    found = fit(laws.CHINCHILLA, together, "squared")
    single = bootstrap(found, 300).standard_errors
    grouped = bootstrap(found, 300, groups=groups).standard_errors
    assert grouped["alpha"] > 1.4 * single["alpha"]


def test_profile_and_bootstrap_agree_where_the_law_is_identified(published):
    found, draws = published
    for name in ("E", "alpha", "beta"):
        seen = profile(found, name)
        assert seen.identified
        assert min(seen.objectives) == pytest.approx(found.objective, rel=1e-9)
        width = draws.intervals[name][1] - draws.intervals[name][0]
        assert seen.interval == pytest.approx(draws.intervals[name], abs=0.3 * width)


def test_profile_of_squares_is_the_t_interval():
    random = np.random.default_rng(3)
    x = np.linspace(1, 3, 200)
    table = {"x": x, "y": np.exp(1.0 + 0.4 * np.log(x) + 0.05 * random.standard_normal(200))}
    found = fit(laws.POWER, table, "squared")
    design = np.stack([np.ones(200), np.log(x)], axis=1)
    covariance = np.linalg.inv(design.T @ design) * found.objective / 198
    half = 1.97 * np.sqrt(covariance[1, 1])
    slope = found.parameters["a"]
    assert profile(found, "a").interval == pytest.approx(
        (slope - half, slope + half), abs=0.1 * half
    )


def test_repeats_too_few_to_tell_leave_their_limit_unidentified():
    random = np.random.default_rng(0)
    truth = {**TRUTH, "R_N": 5.0, "R_D": 15.0}
    table = {"N": 10 ** random.uniform(7, 8, 60), "D": 10 ** random.uniform(9, 11, 60)}
    table["U"] = table["D"] / random.uniform(1, 1.5, 60)
    exact = laws.REPETITION.predict(truth, table)
    table["loss"] = exact * np.exp(3e-3 * random.standard_normal(60))
    given = {name: truth[name] for name in truth if name not in ("R_D", "E")}
    found = fit(laws.REPETITION, table, fixed=given)
    seen = profile(found, "R_D")
    assert not seen.identified
    assert "R_D is not identified from above" in seen.sentence


def test_a_prediction_says_how_far_it_reaches(published):
    found, draws = published
    within = predict(found, {"N": 1e9, "D": 2e10}, draws)
    beyond = predict(found, {"N": 7e9, "D": 2e12}, draws)
    far = predict(found, {"N": 7e10, "D": 2e13}, draws)
    assert "within the range" in within.why
    assert "times the largest row's" in beyond.why
    assert "do not rely" not in beyond.why
    assert "do not rely" in far.why
    assert beyond.point == pytest.approx(
        float(found.law.predict(found.parameters, {"N": 7e9, "D": 2e12}))
    )


def test_requests_that_have_no_answer_are_refused(published):
    found, draws = published
    with pytest.raises(InputError, match="5 groups cannot say"):
        bootstrap(found, groups=np.arange(240) % 5)
    with pytest.raises(InputError, match="3 labels for 240 rows"):
        bootstrap(found, groups=np.arange(3))
    with pytest.raises(InputError, match="1 resamples"):
        bootstrap(found, 1)
    with pytest.raises(InputError, match="needs D as a positive number, not no D"):
        predict(found, {"N": 1e9}, draws)
    with pytest.raises(InputError, match="not N=-1"):
        predict(found, {"N": -1, "D": 1e9}, draws)
    with pytest.raises(InputError, match="gamma was not fitted"):
        profile(found, "gamma")

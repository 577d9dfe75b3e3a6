"""Laws of schedules: published figures, the sums they are made of, and what a fit refuses."""

import json

import numpy as np
import pytest

from configs.schema import InputError
from scaling.annealing import (
    MOMENTUM,
    MULTI_POWER,
    Run,
    decay_now,
    evaluate,
    fit_schedules,
    mean,
    momentum_law,
    multi_power_law,
    share_felt,
    share_felt_by_momentum,
)

PUBLISHED = {
    "L0": 3.04045406,
    "A": 0.52468604,
    "alpha": 0.50786857,
    "B": 363.78751622,
    "C": 2.06560812,
    "beta": 0.58279013,
    "gamma": 0.64142257,
}
TRAINING = ("cosine_24000", "constant_24000", "wsdcon_9")
TEST = (
    *("constant_72000", "cosine_72000", "wsd_20000_24000"),
    *("wsdld_20000_24000", "wsdcon_3", "wsdcon_18"),
)
WARMUP, PEAK, END = 2160, 3e-4, 3e-5


def rates(name):
    """The schedules of shared/data/scaling/multipowerlaw/README.md, by the name of the file."""
    kind, *numbers = name.split("_")
    total = int(numbers[-1])
    if kind == "wsdcon":
        rest = np.repeat([PEAK, total * 1e-5], [8000 - WARMUP, 8000])
    elif kind in ("wsd", "wsdld"):
        done = np.arange(4000) / 4000
        fall = PEAK ** (1 - done) * END**done if kind == "wsd" else PEAK + (END - PEAK) * done
        rest = np.concatenate([np.full(20000 - WARMUP, PEAK), fall])
    else:
        done = np.arange(total - WARMUP) / (total - WARMUP)
        wave = END + (PEAK - END) * (1 + np.cos(np.pi * done)) / 2
        rest = wave if kind == "cosine" else np.full(total - WARMUP, PEAK)
    return np.concatenate([np.linspace(0, PEAK, WARMUP), rest])


def curve(folder, name, every=1):
    """Points without the one at step 24000, which no file has; step s has seen s + 1 updates."""
    step, _, loss = np.genfromtxt(folder / f"{name}.csv", delimiter=",", skip_header=1).T
    assert step[-1] < 24000 or name.endswith("72000")
    return Run(rates(name), step[::every].astype(int) + 1, loss[::every])


@pytest.fixture
def folder(shared_data):
    return shared_data / "scaling" / "multipowerlaw" / "csv_25"


@pytest.fixture
def anchor(shared_data):
    checks = json.loads((shared_data / "scaling" / "anchors.json").read_text())
    checks = checks.get("checks", checks) if isinstance(checks, dict) else checks
    return next(check for check in checks if check["id"] == "mpl_25_metrics")


def unseen(folder, law, parameters):
    """Measures on the six curves that no fit saw, averaged over curves."""
    runs = [curve(folder, name) for name in TEST]
    return mean([evaluate(law(parameters, run.eta_t, run.at_n), run.loss_n) for run in runs])


def test_the_published_parameters_give_the_published_measures(folder, anchor):
    found = unseen(folder, multi_power_law, PUBLISHED)
    for name, digits in (("r2", 4), ("mae", 5), ("rmse", 5), ("prede", 4), ("worste", 5)):
        assert round(getattr(found, name), digits) == anchor[name]


def test_the_momentum_law_fitted_to_three_curves_gives_what_is_known_of_it(folder):
    """Huber's function at 1e-3 of log residuals, summed, all points of the three; lambda .999."""
    found = fit_schedules(MOMENTUM, [curve(folder, name) for name in TRAINING])
    assert found.fit.parameters["memory"] == 1000
    assert found.fit.gradient_norm < 1e-6
    measures = unseen(folder, momentum_law, found.fit.parameters)
    assert round(measures.r2, 5) == 0.99793
    assert round(measures.mae, 5) == 0.00477


@pytest.mark.slow
def test_a_multi_power_fit_has_a_lower_objective_than_the_published_one(folder):
    """The same rows and function: published 2.91e-4; ours is certified, and predicts as well."""
    runs = [curve(folder, name) for name in TRAINING]
    found = fit_schedules(MULTI_POWER, runs)
    residuals = np.concatenate(
        [np.log(multi_power_law(PUBLISHED, run.eta_t, run.at_n) / run.loss_n) for run in runs]
    )
    size = np.abs(residuals)
    published = np.where(size < 1e-3, size**2 / 2, 1e-3 * (size - 5e-4)).sum()
    assert found.fit.objective < 0.5 * published
    assert found.fit.gradient_norm < 1e-6
    assert found.fit.agreeing == found.fit.starts
    assert unseen(folder, multi_power_law, found.fit.parameters).prede < 0.0015


def schedule(total=3000, warmup=200, decay=800):
    rise = np.linspace(0, 1e-3, warmup)
    fall = np.linspace(1e-3, 0, decay)
    return np.concatenate([rise, np.full(total - warmup - decay, 1e-3), fall])


def test_sums_in_blocks_are_the_sums_over_updates(monkeypatch):
    eta, at = schedule(), np.array([150, 700, 2201, 2600, 3000])
    p = PUBLISHED
    sums = np.cumsum(np.maximum(eta, 1e-15))
    expected = []
    for t in at:
        drop = sum(
            (eta[k] - eta[k - 1])
            * (
                1
                - (1 + p["C"] * max(eta[k], 1e-15) ** -p["gamma"] * (sums[t - 1] - sums[k - 1]))
                ** -p["beta"]
            )
            for k in range(1, t)
        )
        expected.append(p["L0"] + p["A"] * sums[t - 1] ** -p["alpha"] + p["B"] * drop)
    np.testing.assert_allclose(multi_power_law(p, eta, at), expected, rtol=1e-9)
    monkeypatch.setattr("scaling.annealing._PAIRS", 1000)  # as for a long run: in blocks of 7
    np.testing.assert_allclose(multi_power_law(p, eta, at), expected, atol=2e-4)


def test_the_momentum_law_sums_what_is_left_of_each_fall():
    eta, at = schedule(), np.array([150, 2201, 2600, 3000])
    p = {"L0": 2.0, "A": 0.5, "alpha": 0.5, "C": 0.4, "memory": 100.0}
    felt, area, areas = 0.0, 0.0, []
    for k in range(3000):
        felt = 0.99 * felt + (eta[k - 1] - eta[k] if k >= 200 else 0.0)
        area += felt
        areas.append(area)
    expected = 2 + 0.5 * np.cumsum(eta)[at - 1] ** -0.5 - 0.4 * np.array(areas)[at - 1]
    np.testing.assert_allclose(momentum_law(p, eta, at), expected, rtol=1e-12)


def test_a_fall_is_felt_little_by_little_and_wholly_in_the_end():
    eta = np.concatenate([schedule(decay=0, total=2000), np.full(200_000, 1e-4)])
    at = np.array([1500, 2000, 2010, 5000, 200_000])
    for share in (share_felt, share_felt_by_momentum):
        felt = share(eta, at)
        assert felt[:2] == pytest.approx(0, abs=1e-12)
        assert 0 < felt[2] < felt[3] < felt[4]
        assert felt[4] == pytest.approx(0.9, abs=0.03)


def test_a_fit_recovers_the_law_it_was_made_with_and_what_decaying_gives():
    truth = {"L0": 2.5, "A": 0.6, "alpha": 0.45, "C": 0.5, "memory": 300.0}
    eta = schedule()
    noise = np.random.default_rng(0).normal(0, 1e-4, 40)
    at = np.linspace(250, 3000, 40).astype(int)
    run = Run(eta, at, momentum_law(truth, eta, at) * np.exp(noise))
    found = fit_schedules(MOMENTUM, [run], fixed={})
    assert found.fit.parameters["C"] == pytest.approx(0.5, rel=0.1)
    assert found.fit.parameters["memory"] == pytest.approx(300, rel=0.15)
    decayed, stayed = decay_now(found, eta[:2000], 500, final=0.0)
    line = np.concatenate([eta[:2000], 1e-3 * np.linspace(1, 0, 501)[1:]])
    assert decayed == pytest.approx(momentum_law(truth, line, [2500])[0], rel=1e-3)
    assert decayed < stayed - 0.05


def test_what_no_law_can_say_is_refused():
    eta, at = np.full(1000, 1e-3), np.arange(100, 1001, 50)
    run = Run(eta, at, 2 + at**-0.5)
    with pytest.raises(InputError, match="falls in none of the curves"):
        fit_schedules(MOMENTUM, [run])
    fixed = {"memory": 1000.0, "C": 0.5}
    assert fit_schedules(MOMENTUM, [run], fixed=fixed).fit.flags == {}
    with pytest.raises(InputError, match="loss is nan at point 3 of a curve, after 200 updates"):
        Run(eta, at, np.where(at == 200, np.nan, 2.0))
    with pytest.raises(InputError, match="after 1000 updates and the schedule has 900"):
        Run(eta[:900], at, 2 + at**-0.5)
    with pytest.raises(InputError, match="none negative or missing"):
        momentum_law(fixed, -eta, at)
    with pytest.raises(InputError, match="takes at least one update"):
        decay_now(fit_schedules(MOMENTUM, [run], fixed=fixed), eta, 0)

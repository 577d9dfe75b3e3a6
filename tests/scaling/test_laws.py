"""Every law evaluates as published, and a fit recovers its parameters from simulated runs."""

from typing import Any

import numpy as np
import pytest

from configs.schema import InputError
from scaling import laws
from scaling.fit import fit
from scaling.laws_form import Law, Parameter, coefficient, exponent, power, scale


def simulated(law: Law, truth: dict[str, float], noise: float, n: int = 120):
    """n random runs whose observations have relative errors of the size `noise`."""
    random = np.random.default_rng(0)
    ranges = {"N": (6, 10), "D": (8, 12), "S": (3, 6), "C": (16, 24), "x": (2, 9), "batch": (2, 5)}
    columns: dict[str, Any] = {
        name: 10 ** random.uniform(*ranges[name], n) for name in law.symbols if name in ranges
    }
    if "loss" in law.symbols:
        columns["loss"] = random.uniform(2, 5, n)
    if "U" in law.symbols:
        columns["U"] = columns["D"] / 10 ** random.uniform(0, 2, n)
    if "experts" in law.symbols:
        columns["experts"] = 2.0 ** random.integers(0, 10, n)
    if "width" in law.symbols:
        columns["width"] = 10 ** random.uniform(2, 4, n)
        columns["depth"] = 10 ** random.uniform(0.5, 2, n)
    if "felt" in law.symbols:
        columns["felt"] = random.uniform(1, 2, n)
    observed = law.predict(truth, columns) * np.exp(noise * random.standard_normal(n))
    return {**columns, law.observed: observed}


CHINCHILLA = {"E": 1.8, "A": 480.0, "B": 2100.0, "alpha": 0.35, "beta": 0.37}
REPETITION = {**CHINCHILLA, "R_N": 5.3, "R_D": 15.4}
TRUTHS = {
    "chinchilla": CHINCHILLA,
    "kaplan_N": {"N_c": 8.8e13, "alpha_N": 0.076},
    "kaplan_D": {"D_c": 5.4e13, "alpha_D": 0.095},
    "kaplan_C": {"C_c": 1.6e7 * 8.64e19, "alpha_C": 0.057},
    "kaplan_ND": {"N_c": 6.4e13, "D_c": 1.8e13, "alpha_N": 0.076, "alpha_D": 0.103},
    "kaplan_NS": {"N_c": 6.5e13, "S_c": 2.1e3, "alpha_N": 0.077, "alpha_S": 0.76},
    "M1": {"B": 30.0, "c": 0.1},
    "M2": {"E": 1.7, "B": 100.0, "c": 0.35},
    "M3": {"E": 0.5, "B": 30.0, "c": 0.2, "gamma": 1e-6},
    "M4": {"E": 1.5, "span": 9.0, "c": 0.4, "a": 0.7, "x_0": 3e4},
    "repetition": REPETITION,
    "width_depth": {**CHINCHILLA, "W": 5.0, "H": 0.8, "omega": 0.6, "eta": 0.9},
    "routed": {"a": -0.082, "b": -0.108, "c": 0.009, "d": 1.104, "E_start": 1.85, "E_max": 314.0},
    "critical_batch": {"S_min": 1293.0, "E_min": 2.8e6},
    "joint": {"log_K": 3.0, "a_N": -0.05, "a_D": -0.08, "a_C": -0.03},
    "downstream": {"epsilon": 0.75, "k": 2.0, "gamma": 0.9},
    "power": {"log_K": 2.0, "a": 0.47},
    "annealed": {"L0": 3.0, "A": 30.0, "alpha": 0.3, "B": 0.5},
}


def test_every_law_has_a_truth_to_recover():
    assert set(TRUTHS) == set(laws.LAWS)


@pytest.mark.parametrize("name", TRUTHS)
def test_a_fit_recovers_every_parameter(name):
    law, truth = laws.get(name), TRUTHS[name]
    found = fit(law, simulated(law, truth, noise=1e-6), "squared")
    assert found.gradient_norm < 1e-6
    assert found.agreeing >= found.starts // 2
    assert found.parameters == pytest.approx(truth, rel=0.01)


@pytest.mark.parametrize("name", TRUTHS)
def test_the_best_parameters_are_never_worse_than_the_truth(name):
    law, truth = laws.get(name), TRUTHS[name]
    table = simulated(law, truth, noise=2e-3)
    residuals = np.abs(np.log(law.predict(truth, table) / table[law.observed]))
    inside = np.minimum(residuals, 1e-3)
    found = fit(law, table)
    assert found.objective <= (inside * (residuals - inside / 2)).sum()
    assert found.gradient_norm < 1e-6


def test_the_published_constants_of_the_repetition_law(anchors):
    a, b, e, exponent = 6.255414, 7.3049974, 0.6254804, 0.3526596
    constants = {"A": np.exp(a), "B": np.exp(b), "E": np.exp(e), "alpha": exponent}
    constants |= {"beta": exponent, "R_D": 15.387756, "R_N": 5.309743}
    table: dict[str, Any] = {
        "N": np.array([6.34e9, 8.67e9]),
        "D": np.array([242e9, 178e9]),
        "U": 25e9,
    }
    losses = laws.REPETITION.predict(constants, table)
    assert losses == pytest.approx(anchors["muennighoff_eval"]["loss"], rel=1e-9)


def test_repetition_without_repeats_is_the_chinchilla_law():
    table = {"N": np.array([1e7, 1e8]), "D": np.array([1e12, 1e13])}
    plain = laws.CHINCHILLA.predict(CHINCHILLA, table)
    repeated = laws.REPETITION.predict(REPETITION, {**table, "U": table["D"]})
    assert repeated == pytest.approx(plain, rel=1e-12)


def test_the_fourth_form_solves_its_equation():
    p, x = TRUTHS["M4"], np.geomspace(1.0, 1e12, 50)
    loss = laws.M4.predict(p, {"x": x})
    y = (loss - p["E"]) / p["span"]
    assert np.all(np.diff(loss) < 0)
    assert y / (1 - y) ** p["a"] == pytest.approx((p["x_0"] / x) ** p["c"], rel=1e-6)


def test_the_joint_estimate_of_a_larger_run():
    at, target = {"N": 10e6, "D": 10, "C": 100}, {"N": 100e6, "D": 50, "C": 500}
    exponents = {"N": -0.05, "D": -0.08, "C": -0.03}
    assert laws.joint_estimate(0.7, at, target, exponents) == pytest.approx(0.5227, abs=5e-5)
    with pytest.raises(InputError, match="the same in all three"):
        laws.joint_estimate(0.7, at, {"N": 1e9}, exponents)
    with pytest.raises(InputError, match="C=0 must be positive"):
        laws.joint_estimate(0.7, at, {**target, "C": 0}, exponents)


def test_a_law_of_ones_own_is_one_short_function():
    def terms(p, t):
        return {"E": 1.0, "A": power(t["N"], -p["alpha"]) * power(t["lr"] / p["best"], p["alpha"])}

    law = Law(
        name="mine",
        symbols={"N": "parameters", "lr": "peak learning rate"},
        parameters=(
            coefficient("E", "irreducible loss"),
            coefficient("A", "size"),
            exponent("alpha", "exponent"),
            scale("best", "a learning rate", 1e-6, 1.0, (1e-3,)),
        ),
        terms=terms,
        source="this test",
    )
    truth = {"E": 1.5, "A": 50.0, "alpha": 0.3, "best": 1e-3}
    random = np.random.default_rng(1)
    table = {"N": 10 ** random.uniform(6, 9, 40), "lr": 10 ** random.uniform(-4, -2, 40)}
    found = fit(law, {**table, "loss": law.predict(truth, table)}, fixed={"best": 1e-3})
    assert found.parameters == pytest.approx(truth, rel=1e-6)


def test_terms_that_lose_complex_numbers_are_refused():
    def terms(p, t):
        return {"E": 1.0, "A": np.exp(-np.abs(p["alpha"]) * np.log(t["N"]))}

    parameters = (coefficient("E", ""), coefficient("A", ""), exponent("alpha", ""))
    law = Law("mine", {"N": "parameters"}, parameters, terms, "this test")
    table = {"N": np.geomspace(1e6, 1e9, 9), "loss": np.geomspace(4, 2, 9)}
    with pytest.raises(InputError, match="derivative of law mine by alpha is wrong"):
        fit(law, table)


def test_mistakes_in_a_declaration_and_in_a_prediction_are_named():
    with pytest.raises(InputError, match="there is no law chinchila"):
        laws.get("chinchila")
    with pytest.raises(InputError, match="needs the parameter beta"):
        laws.CHINCHILLA.predict({"E": 1, "A": 1, "B": 1, "alpha": 1}, {"N": 1e9, "D": 1e9})
    with pytest.raises(InputError, match="needs the column D"):
        laws.CHINCHILLA.predict(CHINCHILLA, {"N": 1e9})
    with pytest.raises(InputError, match="starts outside its bounds"):
        exponent("alpha", "exponent", upper=0.1)
    with pytest.raises(InputError, match="lower bound must be positive"):
        scale("R", "scale", 0.0, 1.0, (0.5,))
    with pytest.raises(InputError, match="bounded by zero"):
        Parameter("E", "floor", 1.0, np.inf)
    with pytest.raises(InputError, match="names a parameter twice"):
        Law("mine", {}, (coefficient("E", ""), coefficient("E", "")), lambda p, t: {}, "")

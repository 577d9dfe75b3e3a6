"""A backtest fits as the fit did, on earlier rows only, and shows how a law drifts."""

import json

import numpy as np
import pytest

from scaling import laws, record
from scaling.backtest import backtest, compute
from scaling.fit import fit

TRUTH = {"E": 1.8, "A": 480.0, "B": 2100.0, "alpha": 0.35, "beta": 0.37}


def grid(budgets=8, sizes=5):
    """IsoFLOP rows over 2.1 decades of compute."""
    c = np.repeat(1e18 * 2.0 ** np.arange(budgets), sizes)
    n = np.tile(np.geomspace(0.3, 3, sizes), budgets) * (c / 120) ** 0.5
    return {"N": n, "D": c / 6 / n}


def table(c=0.0, noise=0.0, **kwargs):
    """Losses of TRUTH, less c log C, with relative errors."""
    sizes = grid(**kwargs)
    loss = laws.CHINCHILLA.predict(TRUTH, sizes) - c * np.log(sizes["N"] * sizes["D"] / 1e17)
    random = np.random.default_rng(0)
    return {**sizes, "loss": loss * np.exp(noise * random.standard_normal(len(loss)))}


def test_a_true_law_has_no_errors_beyond_any_cutoff():
    found = backtest(fit(laws.CHINCHILLA, table()))
    assert len(np.unique(found.cutoff_n)) == 5  # of 8 budgets; the first two are too near
    assert np.abs(found.error_n).max() < 1e-6
    assert "0.00%" in found.sentence


@pytest.mark.parametrize("objective", ["huber", "squared"])
def test_each_prediction_is_that_of_a_fit_to_the_earlier_rows(objective):
    rows = table(noise=3e-3)
    whole = fit(laws.CHINCHILLA, rows, objective)
    found = backtest(whole)
    by = 6 * rows["N"] * rows["D"]
    assert found.by == "6ND"
    for cutoff in np.unique(found.cutoff_n):
        earlier = by <= cutoff
        alone = fit(laws.CHINCHILLA, {k: v[earlier] for k, v in rows.items()}, objective)
        here = found.cutoff_n == cutoff
        place = {name: rows[name][found.row_n[here]] for name in "ND"}
        expected = alone.law.predict(alone.parameters, place)
        np.testing.assert_allclose(found.predicted_n[here], expected, rtol=2e-5)
    assert (by[found.row_n] == found.target_n).all()
    assert (found.observed_n == rows["loss"][found.row_n]).all()


def test_targets_lie_beyond_their_cutoff_and_within_thirty_times():
    found = backtest(fit(laws.CHINCHILLA, table(noise=1e-3, budgets=12)))
    ratios = np.unique(found.ratio_n.round(6))
    np.testing.assert_allclose(ratios, [2, 4, 8, 16])  # a budget is not cut apart; 32 is too far


def test_what_the_law_lacks_is_drift_that_grows_with_the_ratio():
    rows = table(c=0.1, noise=1e-4, budgets=12)
    found = backtest(fit(laws.CHINCHILLA, rows, "squared"))
    assert list(found.drift) == [2.0, 5.0, 11.0]
    assert 0.002 < found.drift[2.0] < found.drift[5.0] < found.drift[11.0]
    assert "too high at 11x" in found.sentence
    rows = table(c=-0.05, noise=1e-4, budgets=12)
    other = backtest(fit(laws.CHINCHILLA, rows, "squared"))
    assert other.drift[11.0] < other.drift[5.0] < other.drift[2.0] < -0.001


def test_what_the_fit_held_is_held_at_every_cutoff():
    rows = table(noise=1e-3)
    held = fit(laws.CHINCHILLA, rows, fixed={"E": 1.0})
    found = backtest(held)
    first = found.cutoff_n == found.cutoff_n.min()
    earlier = 6 * rows["N"] * rows["D"] <= found.cutoff_n.min()
    part = {name: column[earlier] for name, column in rows.items()}
    alone = fit(laws.CHINCHILLA, part, fixed={"E": 1.0})
    place = {name: rows[name][found.row_n[first]] for name in "ND"}
    expected = alone.law.predict(alone.parameters, place)
    np.testing.assert_allclose(found.predicted_n[first], expected, rtol=2e-5)


def test_too_few_rows_are_no_backtest():
    found = backtest(fit(laws.CHINCHILLA, table(budgets=2, sizes=4, noise=1e-3)))
    assert not found.row_n.size
    assert found.drift == {}
    assert found.sentence.startswith("no backtest")


def test_rows_that_do_not_tell_the_parameters_apart_are_no_cutoff():
    """The first budgets have one ratio of D to N: their exponents cannot be fitted."""
    sizes = np.geomspace(1e7, 1e8, 12)
    line = {"N": sizes, "D": 20 * sizes}
    far = {name: np.concatenate([line[name], 40 * column]) for name, column in grid(4, 4).items()}
    loss = laws.CHINCHILLA.predict(TRUTH, far)
    found = backtest(fit(laws.CHINCHILLA, {**far, "loss": loss}, "squared"))
    assert found.row_n.size
    assert found.cutoff_n.min() > 120 * sizes.max() ** 2


@pytest.mark.parametrize(
    ("law", "columns", "by", "value"),
    [
        (laws.CHINCHILLA, {"N": 2.0, "D": 5.0}, "6ND", 60.0),
        (laws.SHAPE, {"N": 2.0, "D": 5.0, "width": 3.0, "depth": 4.0}, "6ND", 60.0),
        (laws.KAPLAN_C, {"C": 7.0}, "C", 7.0),
        (laws.JOINT, {"N": 2.0, "D": 5.0, "C": 7.0}, "C", 7.0),
        (laws.KAPLAN_D, {"D": 5.0}, "D", 5.0),
        (laws.KAPLAN_NS, {"N": 2.0, "S": 5.0}, "N S", 10.0),
        (laws.DOWNSTREAM, {"loss": 4.0}, "1 / loss", 0.25),
    ],
)
def test_what_makes_a_row_larger(law, columns, by, value):
    name, values = compute(law, {key: np.array([each]) for key, each in columns.items()})
    assert (name, values[0]) == (by, pytest.approx(value))


def test_a_law_of_one_variable_has_a_backtest():
    x = np.geomspace(1, 1e3, 15)
    found = backtest(fit(laws.M2, {"x": x, "loss": 2 + 3 * x**-0.4}))
    assert found.by == "x"
    assert np.abs(found.error_n).max() < 1e-5


def test_a_file_keeps_it(tmp_path):
    whole = fit(laws.CHINCHILLA, table(noise=1e-3))
    tested = backtest(whole)
    path = tmp_path / "fit.json"
    path.write_text(json.dumps(record.to_json(whole, None, [], [], {}, tested)))
    again = record.load_backtest(str(path))
    assert again is not None
    assert again.sentence == tested.sentence
    assert again.drift == pytest.approx(tested.drift)
    for name in ("cutoff_n", "target_n", "row_n", "predicted_n", "observed_n"):
        np.testing.assert_array_equal(getattr(again, name), getattr(tested, name))
    old = json.loads(path.read_text())
    del old["backtest"]
    path.write_text(json.dumps(old))
    assert record.load_backtest(str(path)) is None
    assert record.load(str(path))[0].n == whole.n

"""Fits of published runs give the published optima; each test names loss function and mask."""

import numpy as np
import pytest

from configs.schema import InputError
from scaling import laws
from scaling.fit import fit

TRUTH = {"E": 1.8, "A": 480.0, "B": 2100.0, "alpha": 0.35, "beta": 0.37}


def grid(n: int = 8, d: int = 8) -> dict[str, np.ndarray]:
    """An N x D grid with exact losses of TRUTH."""
    sizes, tokens = np.meshgrid(np.geomspace(1e7, 1e10, n), np.geomspace(1e9, 1e12, d))
    table = {"N": sizes.ravel(), "D": tokens.ravel()}
    return {**table, "loss": laws.CHINCHILLA.predict(TRUTH, table)}


def certified(found) -> bool:
    return found.gradient_norm < 1e-6 and found.agreeing == found.starts


def test_chinchilla_240_rows_log_huber_1e_3(epoch, anchors):
    found, anchor = fit(laws.CHINCHILLA, epoch("240")), anchors["epoch_huber1e-3"]
    assert found.n == 240
    assert certified(found)
    assert found.objective == pytest.approx(anchor["objective"], rel=1e-6)
    for name in ("E", "alpha", "beta"):
        assert found.parameters[name] == pytest.approx(anchor[name], abs=5e-6)
    for name in ("A", "B"):
        assert found.parameters[name] == pytest.approx(anchor[name], rel=1e-5)
    lad = anchors["epoch_lad"]  # the numbers everybody copies belong to another loss function
    assert found.parameters["A"] != pytest.approx(lad["A"], rel=5e-3)


def test_chinchilla_240_rows_log_least_absolute_deviations(epoch, anchors):
    found, anchor = fit(laws.CHINCHILLA, epoch("240"), "lad"), anchors["epoch_lad"]
    assert certified(found)
    for name in ("E", "alpha", "beta"):
        assert found.parameters[name] == pytest.approx(anchor[name], abs=6e-6)
    for name in ("A", "B"):
        assert found.parameters[name] == pytest.approx(anchor[name], rel=1e-5)
    predicted = found.law.predict(found.parameters, found.table)
    residuals = np.abs(np.log(predicted / found.table["loss"]))
    assert found.objective == pytest.approx(residuals.sum(), rel=1e-9)
    assert (residuals < 1e-8).sum() == 5  # as many rows as parameters: a vertex


def test_chinchilla_all_245_rows_log_huber_1e_3(epoch, anchors):
    found, anchor = fit(laws.CHINCHILLA, epoch("all")), anchors["epoch_all245"]
    assert found.n == 245
    assert found.objective == pytest.approx(anchor["objective"], rel=1e-5)
    for name in ("E", "alpha", "beta"):
        assert found.parameters[name] == pytest.approx(anchor[name], abs=1e-4)


def test_chinchilla_217_rows_squared_error_of_the_loss(epoch, anchors):
    found = fit(laws.CHINCHILLA, epoch("217"), "squared", space="linear")
    anchor = anchors["epoch_mse217"]
    assert found.n == 217
    assert found.objective == pytest.approx(anchor["rss"], rel=1e-5)
    for name in ("E", "alpha", "beta"):
        assert found.parameters[name] == pytest.approx(anchor[name], abs=2e-4)


def test_first_published_resample_of_the_240_rows(epoch):
    rows = np.random.RandomState(42).choice(240, 240)
    found = fit(laws.CHINCHILLA, {name: column[rows] for name, column in epoch("240").items()})
    published = {"E": 1.79333, "A": 349.556, "B": 2356.248, "alpha": 0.328633, "beta": 0.371855}
    assert found.parameters == pytest.approx(published, rel=2e-5)


def test_gadre_five_points_squared_error_with_one_exponent(gadre, anchors):
    anchor = anchors["gadre_rpj"]
    narrow = (gadre["ratio"] == 20) & (gadre["N"] < 1e9)
    wide = (gadre["ratio"] == 320) & (gadre["N"] == gadre["N"].min())
    table = {name: gadre[name][narrow | wide] for name in ("N", "D", "loss")}
    tied = {"beta": "alpha"}
    found = fit(laws.CHINCHILLA, table, "squared", space="linear", tied=tied)
    a, b, slope = (found.parameters[name] for name in ("A", "B", "alpha"))
    assert found.n == 5
    as_published = [a, b * 6 ** (slope / 2), -slope, found.parameters["E"]]
    assert as_published == pytest.approx(anchor["params"], rel=5e-6)

    medium = (gadre["ratio"] == 20) & (gadre["N"] == 1439795200)
    six = {name: gadre[name][narrow | wide | medium] for name in ("loss", "error")}
    errors = fit(laws.DOWNSTREAM, six, "squared", space="linear")
    assert errors.n == 6
    for size, ratio, title in ((1439795200, 640, "1.4B M640"), (6889410560, 20, "6.9B M20")):
        row = int(np.flatnonzero((gadre["N"] == size) & (gadre["ratio"] == ratio))[0])
        loss = found.law.predict(found.parameters, {"N": size, "D": gadre["D"][row]})
        error = errors.law.predict(errors.parameters, {"loss": loss})
        for key, value in (("loss", loss), ("error", error)):
            off = 100 * abs(float(value) / gadre[key][row] - 1)
            name = f"{title} {'err17' if key == 'error' else key}"
            assert off == pytest.approx(anchor["rel_err_pct"][name], abs=anchor["tol"]["abs_pct"])


def test_gemstones_220_rows_log_huber_1e_3(gemstones, anchors):
    found, anchor = fit(laws.CHINCHILLA, gemstones), anchors["gemstones_hot_1e-3"]
    assert found.n == 220
    assert found.objective == pytest.approx(anchor["objective"], rel=1e-6)
    exponents = [found.parameters["alpha"], found.parameters["beta"]]
    assert exponents == pytest.approx(anchor["exponents"], abs=5e-5)


def test_gemstones_with_width_and_depth_fits_better_and_lists_its_rival(gemstones):
    found = fit(laws.SHAPE, gemstones)
    assert found.objective < 0.00102301
    assert found.gradient_norm < 1e-6
    assert [minimum.objective for minimum in found.minima] == sorted(
        minimum.objective for minimum in found.minima
    )
    assert len(found.minima) > 1


def test_critical_batch_of_five_models_log_squared(steps_to_target, anchors):
    sizes = np.unique(steps_to_target["millions"])
    batches = []
    for size in sizes:
        rows = steps_to_target["millions"] == size
        table = {name: steps_to_target[name][rows] for name in ("batch", "S")}
        found = fit(laws.CRITICAL_BATCH, table, "squared").parameters
        batches.append(found["E_min"] / (5 * found["S_min"]) + 1.2 * 256)
    assert batches == pytest.approx(anchors["cbs"]["cbs"], rel=1e-5)
    law = fit(laws.POWER, {"x": sizes, "y": np.array(batches)}, "squared").parameters
    assert [np.exp(law["log_K"]), law["a"]] == pytest.approx(anchors["cbs"]["law"], rel=1e-4)


@pytest.mark.parametrize(
    ("kind", "expected", "error"),
    [
        ("S-Base", (-0.0830, -0.1180, 0.0099, 1.1136, 2.07, 238.7), 0.0032),
        ("RL-R", (-0.0827, -0.1234, 0.0112, 1.1070, 1.72, 470.1), 0.0032),
        ("Hash", (-0.0874, -0.1384, 0.0126, 1.1595, 4.27, 427.3), 0.0030),
    ],
)
def test_routed_experts_squared_error_of_the_logarithm(routed, kind, expected, error):
    found = fit(laws.ROUTED, routed(kind), "squared")
    values = [found.parameters[name] for name in ("a", "b", "c", "d", "E_start", "E_max")]
    np.testing.assert_array_less(np.abs(np.subtract(values, expected)), [*[6e-5] * 4, 6e-3, 0.06])
    assert np.sqrt(found.objective / found.n) / np.log(10) == pytest.approx(error, abs=5e-5)


def test_exact_losses_give_the_truth_whatever_the_loss_function():
    for objective in ("huber", "lad", "squared"):
        for space in ("log", "linear"):
            found = fit(laws.CHINCHILLA, grid(), objective, space=space)
            assert found.parameters == pytest.approx(TRUTH, rel=1e-6)


def test_doubling_a_weight_is_repeating_the_row(epoch):
    table = epoch("240")
    weights = np.where(np.arange(240) % 7 == 0, 2.0, 1.0)
    repeated = {name: np.repeat(column, weights.astype(int)) for name, column in table.items()}
    weighted = fit(laws.CHINCHILLA, table, weights=weights)
    assert weighted.objective == pytest.approx(fit(laws.CHINCHILLA, repeated).objective, rel=1e-9)


def test_fixed_parameters_stay_and_the_others_do_their_best(epoch):
    table = epoch("240")
    best = fit(laws.CHINCHILLA, table)
    there = fit(laws.CHINCHILLA, table, fixed={"E": best.parameters["E"], "alpha": 0.3473105})
    assert there.objective == pytest.approx(best.objective, rel=1e-6)
    held = fit(laws.CHINCHILLA, table, fixed={"A": 406.4, "alpha": 0.34})
    assert (held.parameters["A"], held.parameters["alpha"]) == (406.4, 0.34)
    assert held.objective > best.objective


def test_one_model_size_is_enough_where_its_term_is_known():
    known = {name: TRUTH[name] for name in ("E", "A", "alpha")}
    found = fit(laws.CHINCHILLA, grid(1, 12), fixed=known)
    assert found.parameters == pytest.approx(TRUTH, rel=1e-6)


def test_tied_coefficients_are_equal_in_the_laws_own_units(epoch):
    found = fit(laws.CHINCHILLA, epoch("240"), tied={"B": "A"})
    assert found.parameters["B"] == found.parameters["A"]
    objectives = []
    for share in (0.97, 1.0, 1.03):
        fixed = dict.fromkeys("AB", share * found.parameters["A"])
        objectives.append(fit(laws.CHINCHILLA, epoch("240"), fixed=fixed).objective)
    assert objectives[1] == pytest.approx(found.objective, rel=1e-7)
    assert min(objectives[0], objectives[2]) > objectives[1]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda t: {k: v[[0, 9, 20, 37, 63]] for k, v in t.items()}, "5 distinct points"),
        (lambda t: {k: np.repeat(v[[0, 9, 20, 37, 63]], 3) for k, v in t.items()}, "5 distinct"),
        (lambda t: {**t, "D": 1e21 / (6 * t["N"])}, "N and D move together"),
        (lambda t: {**t, "D": 20 * t["N"]}, "N and D move together"),
        (lambda t: {**t, "N": np.full(64, 1e9)}, "every row has the same N"),
        (
            lambda t: {**t, "loss": np.where(np.arange(64) == 6, np.nan, t["loss"])},
            "loss is nan in row 7",
        ),
        (lambda t: {**t, "N": np.where(np.arange(64) == 2, 0.0, t["N"])}, "N is 0 in row 3"),
        (lambda t: {**t, "D": np.where(np.arange(64) == 0, np.inf, t["D"])}, "D is inf in row 1"),
        (lambda t: {"N": t["N"], "loss": t["loss"]}, "reads the column D"),
        (lambda t: {**t, "D": t["D"][:9]}, "differ in length"),
        (lambda t: {k: v[:0] for k, v in t.items()}, "0 distinct points"),
    ],
)
def test_a_table_that_cannot_answer_is_refused(change, sentence):
    with pytest.raises(InputError, match=sentence):
        fit(laws.CHINCHILLA, change(grid()))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"objective": "mse"}, "objective=mse"),
        ({"space": "bits"}, "space=bits"),
        ({"delta": 0.0}, "delta=0"),
        ({"weights": np.zeros(64)}, "64 positive numbers"),
        ({"fixed": {"gamma": 1.0}}, "no parameter gamma"),
        ({"tied": {"A": "alpha"}}, "one is a coefficient"),
        ({"fixed": {"A": 1.0}, "tied": {"A": "B"}}, "neither tied nor fixed"),
        ({"fixed": TRUTH}, "every parameter"),
    ],
)
def test_a_request_that_makes_no_sense_is_refused(options, sentence):
    with pytest.raises(InputError, match=sentence):
        fit(laws.CHINCHILLA, grid(), **options)


def test_a_loss_without_a_floor_is_flagged():
    table = grid()
    table["loss"] = 300 * table["N"] ** -0.2 * (1 + 3e8 / table["D"]) ** 0.1
    found = fit(laws.CHINCHILLA, table)
    assert found.parameters["E"] == 0
    assert "lies at the end of its range" in found.flags["E at bound"]


def test_equal_exponents_are_flagged_and_tying_them_costs_nothing():
    table = grid()
    table["loss"] = laws.CHINCHILLA.predict({**TRUTH, "beta": TRUTH["alpha"]}, table)
    found = fit(laws.CHINCHILLA, table)
    assert "tie them" in found.flags["alpha = beta"]
    tied = fit(laws.CHINCHILLA, table, tied={"beta": "alpha"})
    assert tied.parameters["A"] == pytest.approx(TRUTH["A"], rel=1e-6)
    assert not tied.flags


def test_what_the_rows_do_not_determine_is_flagged():
    table = grid()
    table["width"], table["depth"] = table["N"] ** 0.5, np.full(64, 12.0)
    found = fit(laws.SHAPE, table)
    assert "do not determine" in found.flags["not identified"]

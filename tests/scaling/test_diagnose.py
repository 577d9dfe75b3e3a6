import dataclasses

import numpy as np
import pytest

from configs.schema import InputError
from scaling.diagnose import diagnose, fitted, refuse
from scaling.suspects import residuals
from scaling.tables import from_columns, read


def sweep(noise=0.002, **columns):
    """60 runs over two decades of N and D, Chinchilla's law with noise on the log; C = 6 N D."""
    rng = np.random.default_rng(0)
    N, D = 10 ** rng.uniform(7, 9, 60), 10 ** rng.uniform(9, 11, 60)
    loss = 1.69 + 406.4 / N**0.34 + 410.7 / D**0.28
    loss *= np.exp(rng.normal(0, noise, 60))
    return {"N": N, "D": D, "C": 6 * N * D, "loss": loss} | columns


def codes(table, **settings):
    """Code: severity, of all findings."""
    return {f.code: f.severity for f in diagnose(table, **settings)}


def only(table, code, **settings):
    (found,) = [f for f in diagnose(table, **settings) if f.code == code]
    return found


def test_a_sound_sweep_has_nothing_against_it():
    assert codes(from_columns(sweep())) == {"flops_6nd": "note"}
    refuse(diagnose(from_columns(sweep())))


def test_five_points_for_five_parameters():
    table = from_columns(sweep()).take(np.arange(5))
    assert codes(table)["too_few_points"] == "refuse"
    twice = from_columns({n: np.tile(v[:5], 3) for n, v in sweep().items()})
    assert codes(twice)["too_few_points"] == "refuse"  # repeating rows adds no points
    assert codes(table.take(np.arange(5)), parameters=4)["few_points"] == "warn"
    with pytest.raises(InputError, match=r"5 distinct points for 5 parameters.*too_few_points"):
        refuse(diagnose(table))


def test_a_single_budget():
    columns = sweep()
    columns["D"] = 1e19 / (6 * columns["N"])
    columns["C"] = np.full(60, 1e19)
    assert codes(from_columns(columns))["single_budget"] == "refuse"


def test_one_ratio_of_tokens_to_parameters():
    columns = sweep()
    columns["D"] = 20 * columns["N"]
    columns["C"] = 6 * columns["N"] * columns["D"]
    assert codes(from_columns(columns))["one_line"] == "refuse"


def test_a_single_size_and_a_single_run():
    columns = sweep(N=np.full(60, 1e8))
    columns["C"] = 6e8 * columns["D"]
    columns["loss"] = np.sort(columns["loss"])[::-1][np.argsort(np.argsort(columns["D"]))]
    assert codes(from_columns(columns))["single_N"] == "refuse"
    assert "single_N" not in codes(from_columns(columns), variables=("D",))
    assert codes(from_columns(columns, runs=("a",) * 60))["one_run"] == "refuse"


def test_duplicates_and_near_duplicates():
    columns = sweep()
    for values in columns.values():
        values[10] = values[4]
        values[20] = values[7] * (1 + 1e-6)
    table = from_columns(columns)
    assert only(table, "duplicates").rows == (11,)
    assert only(table, "near_duplicates").rows == (21,)
    assert "near_duplicates" not in codes(from_columns(columns, runs=("a",) * 60))


def test_seeds_of_one_setting_are_no_duplicates():
    columns = sweep()
    for name, values in columns.items():
        values[10] = values[4] * (1 + 0.001 * (name == "loss"))
    assert not {"duplicates", "near_duplicates"} & set(codes(from_columns(columns)))


@pytest.mark.parametrize("factor", [1.6, 2.5, 4])
def test_a_diverged_run(factor):
    columns = sweep()
    columns["loss"][[3, 31]] *= factor
    found = only(from_columns(columns), "diverged")
    assert (found.severity, found.rows) == ("refuse", (4, 32))
    assert found.sentence.startswith("rows 4, 32: ")
    accepted = codes(from_columns(columns), accept=("diverged",))
    assert accepted["diverged"] == "warn"


def test_a_diverged_run_among_few():
    columns = {name: values[:9] for name, values in sweep().items()}
    columns["loss"][np.argmax(columns["C"])] = 9.0
    assert codes(from_columns(columns))["diverged"] == "refuse"
    few = {"N": [1e7, 1e8, 1e9], "D": [1e9, 1e10, 1e11], "loss": [4.0, 3.0, 6.0]}
    assert only(from_columns(few), "diverged").rows == (3,)  # too few for a surface


@pytest.mark.parametrize("value", [np.nan, np.inf, -1.0, 0.0])
def test_a_loss_that_is_no_loss(value):
    columns = sweep()
    columns["loss"][5] = value
    found = only(from_columns(columns), "not_finite")
    assert (found.severity, found.rows) == ("refuse", (6,))
    assert "row 6: loss is NaN, infinite or not positive" in found.sentence


def test_nothing_but_nan():
    assert codes(from_columns(sweep(loss=np.full(60, np.nan)))) == {"not_finite": "refuse"}


def test_rows_in_bits_among_nats():
    columns = sweep()
    columns["loss"][40:45] /= np.log(2)
    found = only(from_columns(columns), "rows_in_bits")
    assert (found.severity, found.rows) == ("refuse", (41, 42, 43, 44, 45))


def test_all_rows_in_bits():
    columns = sweep()
    columns["loss"] /= np.log(2)
    assert codes(from_columns(columns))["loss_perhaps_bits"] == "warn"
    assert "loss_perhaps_bits" not in codes(from_columns(columns, conventions={"loss": "nats"}))
    said = from_columns(columns, conventions={"loss": "bits"})
    assert codes(said)["loss_in_bits"] == "refuse"


@pytest.mark.parametrize(
    ("read_as", "code"),
    [
        ("bits_per_byte", "loss_in_bits"),
        ("eval/bpb", "loss_in_bits"),
        ("bits_per_byte*bits", ""),
        ("bits * bpb", ""),
        ("val_ppl", "loss_is_perplexity"),
        ("log(val_ppl)", ""),
        ("loss", ""),
    ],
)
def test_the_name_of_a_loss_tells_its_unit(read_as, code):
    table = dataclasses.replace(from_columns(sweep()), units={"loss": read_as})
    assert {c for c in codes(table) if c.startswith("loss")} == ({code} if code else set())


def test_a_loss_that_rises():
    assert codes(from_columns(sweep(loss=1 / sweep()["loss"])))["loss_rises"] == "refuse"


def test_parameters_without_embeddings_beside_operations_with_them():
    columns = sweep()
    total = columns["N"] + 47491 * np.cbrt(columns["N"])  # Pearce and Song 2024
    C = 6 * total * columns["D"]
    found = only(from_columns(columns | {"C": C}), "embeddings")
    assert found.severity == "refuse"
    assert "falls with N: C counts what N leaves out" in found.sentence
    found = only(from_columns(columns | {"N": total}), "embeddings")
    assert "rises with N: N counts what C leaves out" in found.sentence


def test_operations_counted_in_other_ways():
    columns = sweep()
    assert codes(from_columns(columns | {"C": 8 / 6 * columns["C"]}))["flops_factor"] == "warn"
    mixed = columns["C"] * np.where(np.arange(60) % 2, 1, 3)
    assert codes(from_columns(columns | {"C": mixed}))["flops_mixed"] == "refuse"


def test_units_mixed_and_units_too_small():
    columns = sweep()
    columns["N"][:20] /= 1e9
    columns["C"] = 6 * columns["N"] * columns["D"]
    found = only(from_columns(columns), "mixed_units")
    assert (found.severity, found.rows) == ("refuse", tuple(range(1, 21)))
    assert codes(from_columns(sweep(N=sweep()["N"] / 1e9)))["small_unit"] == "warn"


@pytest.mark.parametrize(
    ("schedule", "code", "severity"),
    [
        ("cosine", "intermediate_points", "refuse"),
        ("linear", "intermediate_points", "refuse"),
        ("wsd", "intermediate_points", "warn"),
        ("", "intermediate_points", "warn"),
        ("constant", "points_share_runs", "note"),
    ],
)
def test_points_of_one_run(schedule, code, severity):
    columns = sweep()
    runs = tuple(str(i // 3) for i in range(60))
    table = from_columns(columns, runs=runs, conventions={"schedule": schedule})
    found = only(table, code)
    assert found.severity == severity
    assert len(found.rows) == 40  # all but the last of each run
    last = [3 * i + int(np.argmax(columns["D"][3 * i : 3 * i + 3])) + 1 for i in range(20)]
    assert not set(last) & set(found.rows)
    labelled = from_columns(columns, runs=runs, schedules=(schedule,) * 60)
    assert only(labelled, code).severity == severity


def test_what_a_point_inside_a_cosine_costs(shared_data):
    """The .035 nats that the finding states, from the curves of Luo et al. 2025."""
    folder = shared_data / "scaling" / "multipowerlaw" / "csv_25"
    long, short = (
        read(str(folder / f"cosine_{n}.csv"), "D=step,loss=loss") for n in (72000, 24000)
    )
    inside = long["loss"][np.abs(long["D"] - 24000) < 700].mean()
    assert inside - short["loss"][-6:].mean() == pytest.approx(0.035, abs=0.001)


def test_a_long_warmup_and_a_large_batch():
    columns = sweep()
    found = only(from_columns(columns | {"warmup": np.full(60, 1e9)}), "long_warmup")
    assert found.rows == tuple(1 + np.flatnonzero(columns["D"] < 1e10))
    critical = 2e8 / columns["loss"] ** (1 / 0.21)
    batch = critical * np.where(np.arange(60) == 8, 2.0, 0.5)
    assert only(from_columns(columns | {"batch": batch}), "large_batch").rows == (9,)


def test_shape_that_goes_with_size():
    columns = sweep()
    depth = np.full(60, 8.0)
    width = np.sqrt(columns["N"] / (12 * depth))
    follows = from_columns(columns | {"depth": depth, "width": width})
    assert codes(follows)["shape_with_size"] == "warn"
    fixed = from_columns(columns | {"depth": width / 64, "width": width})
    assert "shape_with_size" not in codes(fixed)


@pytest.mark.parametrize(("times", "code"), [(3, None), (10, "extrapolation"), (40, "far_beyond")])
def test_a_target_far_beyond_the_table(times, code):
    columns = sweep()
    largest = columns["C"].max()
    found = set(codes(from_columns(columns), target={"C": times * largest}))
    assert found - {"flops_6nd"} == ({code} if code else set())
    table = from_columns({name: columns[name] for name in ("N", "D", "loss")})
    found = set(codes(table, target={"N": 1e6, "D": times * largest / 6e6}))
    assert found == ({code} if code else set())


def isoflops(reach, off=1.0):
    C = np.repeat([1e17, 1e18, 1e19], 9)
    G = (0.34 * 406.4 / (0.28 * 410.7)) ** (1 / 0.62)
    N = off * G * (C / 6) ** (0.28 / 0.62) * np.tile(np.geomspace(1 / reach, reach, 9), 3)
    D = C / (6 * N)
    return from_columns({"N": N, "D": D, "loss": 1.69 + 406.4 / N**0.34 + 410.7 / D**0.28})


@pytest.mark.parametrize(
    ("reach", "off", "expected"),
    [
        (4, 1, set()),
        (12, 1, {"wide_grid"}),
        (7, 3, {"off_center", "wide_grid"}),
        (1.2, 1, {"narrow_grid"}),
        (3, 8, {"no_interior_minimum"}),
    ],
)
def test_grids_of_isoflop_curves(reach, off, expected):
    found = set(codes(isoflops(reach, off)))
    assert found == expected


def test_no_interior_minimum_names_the_budget_and_its_rows():
    found = [f for f in diagnose(isoflops(3, 1 / 8)) if f.code == "no_interior_minimum"]
    assert [f.rows for f in found] == [tuple(range(1 + 9 * i, 10 + 9 * i)) for i in range(3)]
    assert "budget 1e+17 (rows 1, 2" in found[0].sentence
    assert "the largest model is the best" in found[0].sentence


def test_epochs_outliers(shared_data):
    """The five highest losses, which the published fit drops, are named; nothing is refused."""
    path = shared_data / "scaling" / "epoch-chinchilla" / "svg_extracted_data.csv"
    table = read(str(path), "N=Model Size,C=Training FLOP,D=C/(6*N),loss=loss")
    found = only(table, "outliers")
    highest = table.rows[np.argsort(-table["loss"])[:5]]
    assert set(highest) <= set(found.rows)
    assert len(found.rows) < 10
    assert only(table, "near_duplicates").rows == (89, 231)
    assert "refuse" not in codes(table).values()


def test_residuals_ignore_a_tenth_of_wild_rows():
    columns = sweep(noise=0)
    columns["loss"][::10] *= 1.2
    rest, deviation = residuals(from_columns(columns))
    np.testing.assert_allclose(rest[::10], np.log(1.2), atol=0.03)
    assert np.abs(np.delete(rest, np.s_[::10])).max() < 0.03
    assert deviation < 0.01


def test_what_a_fit_returned():
    bounds = {"E": 0.0, "alpha": 0.0}, {"alpha": 1.0}
    (found,) = fitted({"E": 1e-9, "alpha": 0.3, "beta": 0.4}, *bounds)
    assert (found.code, found.severity) == ("at_bound", "warn")
    assert "no floor" in found.sentence
    (found,) = fitted({"E": 1.7, "alpha": 1.0, "beta": 0.4}, *bounds)
    assert found.code == "at_bound"
    (found,) = fitted({"E": 1.7, "alpha": 0.35, "beta": 0.35}, *bounds)
    assert found.code == "equal_exponents"
    assert not list(fitted({"E": 1.7, "alpha": 0.34, "beta": 0.28}, *bounds))

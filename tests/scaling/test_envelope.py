"""The envelope of simulated curves has the exponents of the law they were made with."""

import numpy as np
import pytest

from configs.schema import InputError
from scaling.envelope import envelope
from scaling.fit import fit
from scaling.laws import CHINCHILLA
from scaling.tables import from_columns, read

E, A, B, ALPHA, BETA = 1.7, 400.0, 400.0, 0.36, 0.32


def curves(sizes, points=60, longest=200.0, bend=0.0, schedule="constant", noise=0.0):
    """Runs of a Chinchilla law up to `longest` tokens a parameter; `bend` raises their middles."""
    n = np.repeat(sizes, points)
    share = np.tile(np.geomspace(1e-2, 1, points), len(sizes))
    d = n * longest * share
    loss = E + A * n**-ALPHA + B * d**-BETA + bend * (1 - share)
    loss *= np.exp(np.random.default_rng(0).normal(0, noise, len(n)))
    runs = tuple(f"{size:.3g}" for size in n)
    return from_columns({"N": n, "D": d, "C": 6 * n * d, "loss": loss}, runs, (schedule,) * len(n))


SIZES = np.geomspace(1e7, 1e10, 25)


def test_the_exponents_are_those_of_the_law():
    found = envelope(curves(SIZES))
    a = BETA / (ALPHA + BETA)  # Hoffmann et al. 2022, equation 4
    assert found.N.exponent == pytest.approx(a, abs=0.01)
    assert found.D.exponent == pytest.approx(1 - a, abs=0.01)
    assert 0 < found.N.standard_error < 0.03
    best = (ALPHA * A / (BETA * B)) ** (1 / (ALPHA + BETA)) * (1e20 / 6) ** a
    assert found.N(1e20) == pytest.approx(best, rel=0.1)
    np.testing.assert_allclose(
        6 * found.points["N"] * found.points["D"], found.points["C"], rtol=1e-6
    )
    assert found.loss is not None
    assert found.loss.parameters["E"] == pytest.approx(E, abs=0.03)
    assert found.loss.parameters["c"] == pytest.approx(ALPHA * BETA / (ALPHA + BETA), abs=0.02)
    assert found.warnings == ()


def test_sizes_at_the_edge_do_not_count():
    table = curves(SIZES)
    found = envelope(table)
    assert set(found.points["N"]) <= set(SIZES[1:-1])
    assert found.left_out > 0
    short = curves(SIZES, longest=5.0)  # all runs end before they are the best of their budget
    with pytest.raises(InputError, match="of 25 sizes 0 are best at some budget"):
        envelope(short)


def test_noise_makes_the_error_larger_but_covers():
    found = envelope(curves(SIZES, noise=0.002))
    a = BETA / (ALPHA + BETA)
    assert abs(found.N.exponent - a) < 4 * found.N.standard_error


def test_middles_of_decaying_runs_bias_it_and_are_warned_of():
    biased = envelope(curves(SIZES, bend=0.1, schedule="cosine"))
    assert abs(biased.N.exponent - BETA / (ALPHA + BETA)) > 0.01
    assert "cosine" in biased.warnings[0]
    table = curves(SIZES)
    unknown = from_columns(table.columns, table.runs)
    assert "are not known" in envelope(unknown).warnings[0]


def test_what_has_no_envelope_is_refused():
    with pytest.raises(InputError, match="of 3 sizes 0 are best at some budget"):
        envelope(curves(np.geomspace(1e8, 1e9, 3)))
    ends = curves(SIZES, points=60)
    with pytest.raises(InputError, match="has 0 runs of more than one point"):
        envelope(from_columns(ends.columns))
    with pytest.raises(InputError, match=r"run a \(rows 1, 2.*\) has several sizes"):
        envelope(from_columns(ends.columns, ("a",) * 100 + ("b",) * 700 + ("c",) * 700))


def test_published_curves(shared_data):
    """Gemstones' 22 shapes at a constant rate, ten points each; and curves that show no optimum."""
    folder = shared_data / "scaling"
    n = "params_active_precise"
    table = read(
        str(folder / "gemstones" / "wandb_df_for_fitting_hot.jsonl"),
        f"N={n},D=tokens,C=6*{n}*tokens,loss=final_loss,run={n}",
        last=False,
    )
    found = envelope(table)
    law = fit(CHINCHILLA, {name: table[name] for name in ("N", "D", "loss")}).parameters
    a = law["beta"] / (law["alpha"] + law["beta"])
    assert abs(found.N.exponent - a) < 2.5 * found.N.standard_error < 0.3
    assert found.N.exponent + found.D.exponent == pytest.approx(1)
    assert found.loss is not None

    dense = read(
        str(folder / "deepmind-routing" / "curves.csv.gz"),
        "N=dense_parameter_count,D=step,C=flops_per_step*step,loss=loss_validation,run=hyper_id",
        "router_type=='Dense' and step>0 and finite(loss)",
        last=False,
    )
    with pytest.raises(InputError, match="of 6 sizes 1 are best at some budget"):
        envelope(dense)  # small models were never trained long enough to fall behind

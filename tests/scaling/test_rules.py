"""Published rules at figures that were published, or worked by hand."""

import json
import math

import pytest

from configs.schema import InputError
from scaling import rules


def test_deepseek(shared_data):
    path = shared_data / "scaling" / "anchors.json"
    anchor = {a["id"]: a for a in json.loads(path.read_text())}["deepseek_4.5e23"]
    rel = anchor["tol"]["rel"]
    assert rules.deepseek_allocation(4.5e23) == pytest.approx((anchor["M"], anchor["D"]), rel=rel)
    assert rules.deepseek_learning_rate(4.5e23) == pytest.approx(anchor["lr"], rel=rel)
    assert rules.deepseek_batch(4.5e23) == pytest.approx(anchor["batch_tokens"], rel=rel)


@pytest.mark.parametrize("C", [1e17, 1e21, 1e25])
def test_deepseek_splits_the_compute_it_has(C):
    """C = M D, but for the rounding of what was printed."""
    size, tokens = rules.deepseek_allocation(C)
    assert size * tokens == pytest.approx(C, rel=1e-3)


def test_deepseek_size():
    """Of the 7B model: 30 layers of 4096, context 4096."""
    by_hand = 72 * 30 * 4096**2 + 12 * 30 * 4096 * 4096
    assert rules.deepseek_flops_per_token(30, 4096, 4096) == by_hand


def test_step_law():
    """1B parameters and 100B tokens: 1.79 * 10^(-6.417 + 3.377) and .58 * 10^6.281."""
    assert rules.step_law_learning_rate(1e9, 1e11) == pytest.approx(1.79 * 10**-3.04, rel=1e-9)
    assert rules.step_law_batch(1e11) == pytest.approx(0.58 * 10**6.281, rel=1e-9)


def test_kaplan_learning_rate():
    """Of GPT-2 small's 85M: the rule with the natural logarithm gives about 7e-4."""
    assert rules.kaplan_learning_rate(math.e**18) == pytest.approx(0.003239 - 18 * 0.0001395)
    assert rules.kaplan_learning_rate(85e6) == pytest.approx(6.9e-4, rel=0.01)
    with pytest.raises(InputError, match="1e10"):
        rules.kaplan_learning_rate(2e10)


def test_power_lines():
    """At 40B tokens .72M tokens; 20 tokens a parameter give a timescale of .22 of the run."""
    assert rules.power_lines_batch(40e9) == pytest.approx(0.721e6, rel=2e-3)
    timescale = rules.power_lines_timescale(20)
    assert timescale == pytest.approx(1.084 * math.exp(-0.527 * math.log(20)))
    decay = rules.weight_decay(timescale, batch=5e5, learning_rate=1e-3, D=2e10)
    assert 5e5 / (1e-3 * decay * 2e10) == pytest.approx(timescale)


def test_zhang_law_is_near_what_it_was_fitted_to():
    fitted = {85e6: 745.320, 151e6: 955.158, 302e6: 1393.727, 604e6: 1888.522, 1.2e9: 2533.411}
    for N, sequences in fitted.items():
        assert rules.zhang_critical_batch(N) / 512 == pytest.approx(sequences, rel=0.05)


BASE = {"N": 10e6, "data": 10.0, "compute": 100.0}
EXPONENTS = {"N": -0.05, "data": -0.08, "compute": -0.03}


class TestProduct:
    def test_worked_example(self):
        target = {"N": 100e6, "data": 50.0, "compute": 500.0}
        found = rules.product_estimate(0.7, BASE, target, EXPONENTS)
        assert found == pytest.approx(0.7 * 10**-0.05 * 5**-0.08 * 5**-0.03)
        assert round(found, 4) == 0.5227

    def test_nothing_changed(self):
        assert rules.product_estimate(0.7, BASE, BASE, EXPONENTS) == 0.7

    def test_names_must_agree(self):
        with pytest.raises(InputError, match="all three"):
            rules.product_estimate(0.7, BASE, {"N": 1e8}, EXPONENTS)

    def test_a_negative_amount_is_named(self):
        with pytest.raises(InputError, match="target N"):
            rules.product_estimate(0.7, BASE, {**BASE, "N": -1.0}, EXPONENTS)

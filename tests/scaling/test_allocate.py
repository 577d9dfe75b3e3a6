"""Allocation against closed forms and published optima; costs by hand arithmetic."""

import dataclasses
import json
import math

import numpy as np
import pytest

from configs.schema import InputError, Model
from scaling import costs
from scaling.allocate import (
    allocate,
    cheapest,
    flat_region,
    marginal,
    matched_size,
    price,
    tokens_left,
)

# Besiroglu et al. 2024 as printed, Hoffmann et al. 2022 with the digits of its source text.
EPOCH = (1.8172, 482.01, 2085.43, 0.3478, 0.3658)
HOFFMANN = (1.6934, 406.4, 410.7, 0.3392, 0.2849)
# Muennighoff et al. 2023: the fit on C4, from the logarithms in their published code.
C4 = (math.exp(0.6254804), math.exp(6.255414), math.exp(7.3049974), 0.3526596, 0.3526596)

flops = costs.training_flops


def chinchilla(E, A, B, alpha, beta):
    return lambda N, D: E + A / N**alpha + B / D**beta


def near(found, expected, rel=1e-6):
    np.testing.assert_allclose(found, expected, rtol=rel)


def closed_form(C, E, A, B, alpha, beta):
    G = (alpha * A / (beta * B)) ** (1 / (alpha + beta))
    return G * (C / 6) ** (beta / (alpha + beta)), (C / 6) ** (alpha / (alpha + beta)) / G


@pytest.fixture
def anchors(shared_data):
    return {a["id"]: a for a in json.loads((shared_data / "scaling" / "anchors.json").read_text())}


class TestTrainingAlone:
    @pytest.mark.parametrize("law", [EPOCH, HOFFMANN, C4])
    @pytest.mark.parametrize("budget", [1e15, 5.76e23, 1e28])
    def test_closed_form_of_chinchilla(self, law, budget):
        best = allocate(chinchilla(*law), flops, budget)
        near((best.N, best.D), closed_form(budget, *law), 1e-9)
        assert best.disagreement < 1e-9
        assert best.cost == pytest.approx(budget, rel=1e-12)
        assert best.limited_by == ""

    def test_published_optimum(self, anchors):
        anchor = anchors["muennighoff_eval"]
        best = allocate(chinchilla(*C4), flops, 5.76e23)
        near((best.N, best.D), (anchor["N_5p76e23"], anchor["D_5p76e23"]), 1e-9)

    def test_marginal_gains_are_the_derivatives(self):
        _, A, B, alpha, beta = EPOCH
        at = marginal(chinchilla(*EPOCH), flops, 1e9, 3e10)
        assert at.per_parameter == pytest.approx(alpha * A / 1e9 ** (alpha + 1), rel=1e-8)
        assert at.per_token == pytest.approx(beta * B / 3e10 ** (beta + 1), rel=1e-8)
        assert at.per_cost_in_N == pytest.approx(at.per_parameter / (6 * 3e10), rel=1e-8)
        assert at.per_cost_in_D == pytest.approx(at.per_token / (6 * 1e9), rel=1e-8)

    def test_budget_for_a_target_is_the_inverse(self):
        law = chinchilla(*HOFFMANN)
        best = allocate(law, flops, 3e22)
        back = cheapest(law, flops, best.loss)
        assert (back.N, back.D, back.cost) == pytest.approx((best.N, best.D, 3e22), rel=1e-7)

    def test_matched_size(self):
        N, D = closed_form(1e22, *HOFFMANN)
        assert matched_size(chinchilla(*HOFFMANN), flops, D) == pytest.approx(N, rel=1e-8)

    def test_non_embedding_counts_steepen_the_exponent(self, anchors):
        """Pearce and Song 2024, by their procedure: 20 sizes, and tokens from their grid."""
        N = np.logspace(2.9, 9.2, 20)
        total = N + 47491 * np.cbrt(N)
        grid = np.logspace(6, 25, 1000)
        for name, (E, A, B, alpha, beta) in {"epoch": EPOCH, "hoffmann": HOFFMANN}.items():
            for kind, sizes, start in (("nonemb", N, 12.95), ("total", total, 14)):
                budgets, best = np.logspace(start, 20.7, 100), []
                for budget in budgets:
                    D = tokens_left(flops, budget, sizes)
                    D = grid[np.abs(D[:, None] - grid).argmin(axis=1)]
                    best.append(sizes[np.argmin(E + A / total**alpha + B / D**beta)])
                exponent = np.polyfit(np.log(budgets), np.log(best), 1)[0]
                assert exponent == pytest.approx(anchors["pearce_song"][name][kind], abs=1e-4)


class TestWrongChoices:
    law, budget = staticmethod(chinchilla(*EPOCH)), 1e22

    def test_flat_region_ends_where_the_loss_is_one_percent_more(self):
        region = flat_region(self.law, flops, self.budget, 0.01)
        best = closed_form(self.budget, *EPOCH)[0]
        assert region.sizes[0] < best / 2 < 2 * best < region.sizes[1]
        assert region.open_ends == ()
        for N, D in zip(region.sizes, region.tokens, strict=True):
            assert self.budget / (6 * N) == pytest.approx(D, rel=1e-9)
            assert self.law(N, D) == pytest.approx(1.01 * region.best.loss, rel=1e-9)

    def test_flat_region_names_its_open_end(self):
        best = closed_form(self.budget, *EPOCH)[0]
        region = flat_region(self.law, flops, self.budget, sizes=(1e8, 1.1 * best))
        assert region.open_ends == ("high",)
        assert region.sizes[1] == pytest.approx(1.1 * best)

    @pytest.mark.parametrize("factor", [0.25, 4.0])
    def test_price_in_loss_and_in_budget(self, factor):
        paid = price(self.law, flops, self.budget, factor)
        N, D = closed_form(self.budget, *EPOCH)
        best = self.law(N, D)
        assert paid.loss == pytest.approx(self.law(factor * N, D / factor), rel=1e-9)
        assert paid.excess == pytest.approx(paid.loss - best, rel=1e-6)
        assert paid.equivalent == pytest.approx(self.budget * (1 - paid.wasted), rel=1e-12)
        assert self.law(*closed_form(paid.equivalent, *EPOCH)) == pytest.approx(paid.loss, rel=1e-9)
        assert 0 < paid.wasted < 1
        enough = paid.to_match / (6 * factor * N)
        assert self.law(factor * N, enough) == pytest.approx(best, rel=1e-9)

    def test_the_best_choice_costs_nothing(self):
        paid = price(self.law, flops, self.budget, 1.0)
        assert paid.excess == pytest.approx(0, abs=1e-12)
        assert paid.wasted == pytest.approx(0, abs=1e-5)

    def test_no_data_make_up_for_a_model_far_too_small(self):
        assert price(self.law, flops, self.budget, 0.001).to_match == math.inf

    def test_a_size_the_budget_cannot_pay_for(self):
        cost = costs.total(flops, costs.serving_flops(1e12))
        with pytest.raises(InputError, match="leaves no tokens"):
            price(self.law, cost, self.budget, 1e3)


class TestOtherCosts:
    law = staticmethod(chinchilla(*EPOCH))

    def check(self, best, law, cost, budget):
        """The optimum by its definition: no size beside it does better with the same budget."""
        assert best.disagreement < 1e-6
        assert best.cost == pytest.approx(budget, rel=1e-9)
        for factor in (0.9, 0.99, 1.01, 1.1):
            N = np.array([factor * best.N])
            assert law(N, tokens_left(cost, budget, N))[0] > best.loss

    def test_serving_shrinks_the_model(self):
        cost = costs.total(flops, costs.serving_flops(2e12))
        alone = allocate(self.law, flops, 1e23)
        best = allocate(self.law, cost, 1e23)
        self.check(best, self.law, cost, 1e23)
        assert best.N < alone.N
        # 6 N D + 2 N D_inf = C leaves D = C / 6N - D_inf / 3.
        near(best.D, 1e23 / (6 * best.N) - 2e12 / 3, 1e-9)

    def test_serving_for_a_target_is_the_condition_of_sardana(self):
        """With L fixed: dcost/dN : dcost/dD = dL/dN : dL/dD, by hand for Chinchilla's law."""
        _, A, B, alpha, beta = EPOCH
        served = 2e12
        cost = costs.total(flops, costs.serving_flops(served))
        best = cheapest(self.law, cost, 2.1)
        assert best.loss == pytest.approx(2.1, rel=1e-12)
        left = (6 * best.D + 2 * served) / (6 * best.N)
        right = (alpha * A / best.N ** (alpha + 1)) / (beta * B / best.D ** (beta + 1))
        assert left == pytest.approx(right, rel=1e-7)
        at_training = cheapest(self.law, flops, 2.1)
        assert best.N < at_training.N
        assert best.cost < at_training.cost + 2 * at_training.N * served

    def test_money_composes(self):
        hours = costs.device_hours(flops, peak=989e12, mfu=0.4)
        cost = costs.total(costs.scaled(hours, 2.5), costs.data_price(1e-7))
        N, D = np.array([7e9]), np.array([1e12])
        by_hand = 6 * 7e9 * 1e12 / (989e12 * 0.4) / 3600 * 2.5 + 1e5
        assert cost(N, D)[0] == pytest.approx(by_hand, rel=1e-12)
        best = allocate(self.law, cost, 1e6)
        self.check(best, self.law, cost, 1e6)
        plain = allocate(self.law, costs.scaled(hours, 2.5), 1e6)
        assert best.D < plain.D

    def test_tokens_are_paid_for_once(self):
        bought = costs.data_price(2.0, unique=10.0)
        np.testing.assert_allclose(bought(np.ones(3), np.array([5.0, 10.0, 40.0])), [10, 20, 20])

    def test_attention_by_hand(self):
        """12 layers of 768 at a context of 1024: 12 L d T a token."""
        N = np.array([12 * 12 * 768**2])
        cost = costs.attention_flops(context=1024, aspect=64)(N, np.array([1.0]))
        assert cost[0] == pytest.approx(12 * 12 * 768 * 1024, rel=1e-12)

    def test_exact_counts(self):
        small = Model(vocab=50_257, context=1024, layers=2, width=128, heads=2, bias=False)
        models = [dataclasses.replace(small, layers=12, width=768, heads=12), small]
        cost = costs.exact_flops(models, size="parameters", convention="6n")
        sizes = np.array([124_337_664.0])
        assert cost(sizes, np.array([1.0]))[0] == pytest.approx(6 * 124_337_664, rel=1e-12)
        palm = costs.exact_flops(models, size="parameters")(sizes, np.array([1.0]))[0]
        assert palm == pytest.approx(6 * 124_337_664 + 12 * 12 * 768 * 1024, rel=1e-12)

    def test_measured_step_times(self):
        sizes = [1e8, 1e9, 1e10]
        seconds = [6 * n * 5e5 / 4e14 for n in sizes]  # as fast at every size
        cost = costs.measured_hours(sizes, seconds, step_tokens=5e5, devices=8)
        same = costs.scaled(flops, 8 / 4e14 / 3600)
        best = allocate(self.law, cost, 100.0, sizes=(1e8, 1e10))
        expected = allocate(self.law, same, 100.0)
        assert 2e8 < best.N < 5e9
        near((best.N, best.D), (expected.N, expected.D), 1e-7)
        with pytest.raises(InputError, match=r"measure more sizes, or bound the choice"):
            allocate(self.law, cost, 100.0)

    def test_a_step_time_that_falls_with_size_is_named(self):
        with pytest.raises(InputError, match="row 3"):
            costs.measured_hours([1e8, 1e9, 2e9], [0.1, 0.5, 0.4], step_tokens=5e5)


class TestLimitedData:
    def test_published_losses(self, anchors):
        law = chinchilla(*C4)
        limited = costs.repeated(law, 25e9, matched_size(law, flops, 25e9))
        N, D = np.array([6.34e9, 8.67e9]), np.array([242e9, 178e9])
        np.testing.assert_allclose(limited(N, D), anchors["muennighoff_eval"]["loss"], rtol=1e-9)

    def test_fresh_tokens_count_in_full_and_epochs_ever_less(self):
        assert costs.effective(np.array([3.0, 5.0]), 5.0, 15.0) == pytest.approx([3, 5])
        worth = costs.effective(np.array([5.0, 10.0, 15.0, 5e6]), 5.0, 15.0)
        gains = np.diff(worth)
        assert 0 < gains[1] < gains[0] < 5
        assert worth[-1] == pytest.approx(5 * 16)

    def test_little_data_ask_for_a_smaller_model_and_epochs(self):
        """Muennighoff et al. 2023: beyond the data, epochs are worth more than parameters."""
        law = chinchilla(*C4)
        limited = costs.repeated(law, 25e9, matched_size(law, flops, 25e9))
        best, free = allocate(limited, flops, 9.3e21), allocate(law, flops, 9.3e21)
        assert best.disagreement < 1e-6
        assert best.N < free.N
        assert best.D > free.D > 25e9
        assert best.loss > free.loss

    def test_a_hard_end_of_the_data_goes_to_parameters(self):
        best = allocate(chinchilla(*EPOCH), flops, 1e22, tokens=(1e6, 5e9))
        assert best.limited_by == "tokens"
        near((best.N, best.D), (1e22 / (6 * 5e9), 5e9))
        assert best.per_cost_in_D > best.per_cost_in_N

    def test_a_largest_size_goes_to_tokens(self):
        best = allocate(chinchilla(*EPOCH), flops, 1e22, sizes=(1e6, 1e9))
        assert best.limited_by == "sizes"
        near((best.N, best.D), (1e9, 1e22 / 6e9))


class TestRefusals:
    def test_a_law_without_an_optimum(self):
        with pytest.raises(InputError, match="no best choice inside"):
            allocate(lambda N, D: 2 + 400 / N**0.3 + 0 * D, flops, 1e20)

    def test_a_budget_that_buys_nothing(self):
        with pytest.raises(InputError, match="cannot be had"):
            allocate(chinchilla(*EPOCH), flops, 1e3)

    @pytest.mark.parametrize("budget", [0.0, -1.0, math.inf, math.nan])
    def test_no_budget(self, budget):
        with pytest.raises(InputError, match="budget"):
            allocate(chinchilla(*EPOCH), flops, budget)

    def test_a_target_below_the_floor(self):
        with pytest.raises(InputError, match="cannot be had"):
            cheapest(chinchilla(*EPOCH), flops, 1.8)

    def test_a_cost_that_falls(self):
        with pytest.raises(InputError, match="rising"):
            marginal(chinchilla(*EPOCH), lambda N, D: D / N, 1e9, 1e9)

"""Problems whose exponents, entropy and noise scale are known: found again, within the intervals.

Each is small enough to be solved here, and its truth is computed and not fitted.
"""

import json

import numpy as np
import pytest

from scaling import laws
from scaling.batch import noise_estimates, noise_scale
from scaling.batch.run import measure
from scaling.fit import Fit, fit
from scaling.uncertainty import Bootstrap, bootstrap, predict


def inside(draws: Bootstrap, name: str, truth: float) -> bool:
    low, high = draws.intervals[name]
    return low < truth < high


def fitted(law: str, **columns: np.ndarray) -> tuple[Fit, Bootstrap]:
    found = fit(laws.get(law), columns)
    return found, bootstrap(found, 400)


class TestRandomFeatures:
    """Ridge regression on random features of Gaussian data whose spectrum is a power law.

    Variances of i^-(1 + a) make the error fall as N^-a in features and D^-a in examples (Maloney,
    Roberts and Sully 2022, arXiv:2210.16859; Bahri et al. 2021, arXiv:2102.06701). The labels of
    the test set have noise of a known variance: the floor.
    """

    exponent, floor, latent = 0.8, 0.5, 4096
    sizes = (16, 32, 64, 128, 256)

    @classmethod
    def loss(cls, N, D, rng, teachers=64):
        """Mean squared error of the best ridge, over random teachers."""
        # At the middles of the integers a sum over the spectrum is nearest to its integral.
        variance = (np.arange(cls.latent) + 0.5) ** -(1 + cls.exponent)
        features = rng.standard_normal((N, cls.latent)) / np.sqrt(N)
        data = rng.standard_normal((D, cls.latent)) * np.sqrt(variance)
        teacher = rng.standard_normal((cls.latent, teachers))
        left, s, right = np.linalg.svd(data @ features.T, full_matrices=False)
        labels = left.T @ (data @ teacher)
        gram = (features * variance) @ features.T
        cross = (features * variance) @ teacher
        own = (variance[:, None] * teacher**2).sum()
        errors = []
        for ridge in np.logspace(-4, 1, 16) * np.median(s) ** 2:
            weights = right.T @ ((s / (s**2 + ridge))[:, None] * labels)
            error = own - 2 * (weights * cross).sum() + (weights * (gram @ weights)).sum()
            errors.append(error / teachers)
        return cls.floor + min(errors)

    @pytest.fixture(scope="class")
    @classmethod
    def sweep(cls):
        grid = [(N, D) for N in cls.sizes for D in cls.sizes]
        rng = np.random.default_rng(0)
        loss = [np.mean([cls.loss(N, D, rng) for _ in range(4)]) for N, D in grid]
        return np.array(grid, float).T, np.array(loss)

    def test_exponents_and_floor(self, sweep):
        (N, D), loss = sweep
        found, draws = fitted("chinchilla", N=N, D=D, loss=loss)
        for name in ("alpha", "beta"):
            assert inside(draws, name, self.exponent)
            assert np.ptp(draws.intervals[name]) < 0.35
        assert inside(draws, "E", self.floor)
        assert found.parameters["E"] == pytest.approx(self.floor, rel=0.03)

    def test_the_largest_is_predicted_from_the_smaller(self, sweep):
        (N, D), loss = sweep
        most = self.sizes[-1]
        held, small = np.minimum(N, D) == most, np.maximum(N, D) < most
        found = fit(laws.get("chinchilla"), {"N": N[small], "D": D[small], "loss": loss[small]})
        ahead = predict(found, {"N": float(N[held][0]), "D": float(D[held][0])})
        assert ahead.lower < loss[held][0] < ahead.upper
        assert ahead.point == pytest.approx(loss[held][0], rel=0.04)


class TestKnownEntropy:
    """Count-based learners of sources whose entropy rate is exact, scored by the true source."""

    @staticmethod
    def chain(states, rng):
        """Transitions of an order-1 Markov chain, its stationary distribution, its entropy rate."""
        moves = rng.dirichlet(np.full(states, 0.3), states)
        moves = 0.8 * moves + 0.2 / states  # no move is so rare that the sample is short for it
        values, vectors = np.linalg.eig(moves.T)
        stationary = np.real(vectors[:, np.argmax(np.real(values))])
        stationary /= stationary.sum()
        entropy = -(stationary[:, None] * moves * np.log(moves)).sum()
        return moves, stationary, entropy

    def test_a_markov_chain(self):
        """Krichevsky-Trofimov counts: H + a constant over D (so b = 1) when all has been seen."""
        rng = np.random.default_rng(0)
        states, learners = 6, 200
        moves, stationary, entropy = self.chain(states, rng)
        lengths = np.round(np.geomspace(2000, 32_000, 6)).astype(int)
        cumulative = np.cumsum(moves, axis=1)[:, :-1]
        counts = np.full((learners, states, states), 0.5)
        everyone, at, loss = np.arange(learners), rng.choice(states, learners, p=stationary), []
        for step in range(1, lengths[-1] + 1):
            following = (cumulative[at] < rng.random((learners, 1))).sum(axis=1)
            counts[everyone, at, following] += 1
            at = following
            if step in lengths:
                learned = counts / counts.sum(axis=2, keepdims=True)
                loss.append(-(stationary[:, None] * moves * np.log(learned)).sum() / learners)
        found, draws = fitted("M2", x=lengths.astype(float), loss=np.array(loss))
        assert inside(draws, "E", entropy)
        assert found.parameters["E"] == pytest.approx(entropy, rel=1e-4)
        assert loss[-1] > (1 + 3e-4) * entropy
        assert inside(draws, "c", 1.0)

    def test_contexts_that_are_ever_rarer(self):
        """With contexts of probability i^-(1 + a) the loss falls as D^-(a / (1 + a)).

        Hutter 2021 (arXiv:2102.04074). A context has a favourite among 16 symbols, drawn before the
        learner's first look; the learner is Bayes' rule over which one it is.
        """
        rng = np.random.default_rng(0)
        a, symbols, contexts, favour = 1.0, 16, 30_000, 0.7
        weight = (np.arange(contexts) + 1.0) ** -(1 + a)
        weight /= weight.sum()
        other = (1 - favour) / symbols
        own = favour + other
        entropy = -own * np.log(own) - (symbols - 1) * other * np.log(other)
        share = np.full(symbols, other)
        share[0] = own  # symbol 0 stands for the favourite
        learners, lengths = 10, np.round(np.geomspace(1000, 300_000, 8)).astype(int)
        loss = np.zeros(len(lengths))
        for i, length in enumerate(lengths):
            for _ in range(learners):
                counts = rng.multinomial(rng.multinomial(length, weight), share)
                belief = (own / other) ** (counts - counts.max(axis=1, keepdims=True)).astype(float)
                belief /= belief.sum(axis=1, keepdims=True)
                learned = other + favour * belief
                loss[i] -= (weight * (np.log(learned) @ share)).sum() / learners
        found, draws = fitted("M2", x=lengths.astype(float), loss=loss)
        assert inside(draws, "c", a / (1 + a))
        assert inside(draws, "E", entropy)
        assert found.parameters["E"] == pytest.approx(entropy, rel=0.01)


class TestNoisyQuadratic:
    """L = |x|^2 / 2 with gradients of examples that scatter around x with a known variance."""

    dimensions, variance = 100, 619.6  # of all dimensions together: tr(Sigma)

    def gradients(self, x, batch, parts, rng):
        """Means of the gradients of `parts` equal parts of a batch."""
        deviation = np.sqrt(self.variance / self.dimensions * parts / batch)
        return x + deviation * rng.standard_normal((parts, self.dimensions))

    def estimate(self, x, batch, parts, rng):
        g = self.gradients(x, batch, parts, rng)
        small, big = (g**2).sum(axis=1).mean(), (g.mean(axis=0) ** 2).sum()
        found = noise_estimates(np.array([small]), np.array([big]), batch / parts, batch)
        return g.mean(axis=0), found[0][0], found[1][0]

    def test_ratio_of_averages(self):
        """With |x| = 1 the noise scale is tr(Sigma); the average of the ratios is off."""
        rng = np.random.default_rng(0)
        x = np.full(self.dimensions, self.dimensions**-0.5)
        signal, noise = np.array([self.estimate(x, 640, 10, rng)[1:] for _ in range(4000)]).T
        found = noise_scale(signal, noise)
        assert abs(found.value - self.variance) < 2.1 * found.standard_error
        assert found.standard_error < 0.01 * self.variance
        assert np.mean(noise / signal) > self.variance + 5 * found.standard_error

    def steps(self, batch, target, rng, measured=None):
        """Updates with the best rate for this batch (a twentieth of it) until |x|^2 <= target."""
        x, steps = np.full(self.dimensions, 1.0), 0
        while (x**2).sum() > target:
            norm2 = (x**2).sum()
            rate = 0.05 / (1 + self.variance / norm2 / batch)
            g, signal, noise = self.estimate(x, batch, 8, rng)
            x, steps = x - rate * g, steps + 1
            if measured is not None:
                measured.append((norm2 / 2, signal, noise))
        return steps

    def test_the_trade_of_time_against_data(self, tmp_path):
        """What one run's noise says of other batches, against runs with those batches.

        The noise scale grows twentyfold on the way, so that one number for it would not do.
        """
        rng = np.random.default_rng(0)
        rows: list[tuple[float, float, float]] = []
        batch, target = 64, 5.0
        self.steps(batch, target, rng, rows)
        (tmp_path / "config.json").write_text('{"model": {"context": 1}}')
        with (tmp_path / "metrics.jsonl").open("w") as file:
            for step, (loss, signal, noise) in enumerate(rows, start=1):
                row = {"kind": "train", "step": step, "tokens": step * batch, "targets": batch}
                row |= {"loss": loss, "gradient_signal": signal, "gradient_noise": noise}
                print(json.dumps(row), file=file)
        found, alike = (measure(str(tmp_path), stretches=count) for count in (8, 1))
        for other in (8, 16, 256, 1024):
            predicted = found.steps_min + found.data_min / other
            needed = np.mean([self.steps(other, target, rng) for _ in range(3)])
            assert predicted == pytest.approx(needed, rel=0.06), other
            if other == 8:
                assert alike.steps_min + alike.data_min / other < 0.85 * needed

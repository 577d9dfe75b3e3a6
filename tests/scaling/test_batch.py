"""Critical batch: published fits, and noise whose scale is known."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from configs.schema import InputError
from scaling import batch
from scaling.batch.run import measure

REPOSITORY = Path(__file__).resolve().parents[2]


class TestTrade:
    def test_both_forms_are_one_law(self):
        """(S/S_min - 1)(E/E_min - 1) = 1 for every batch, with E = B S."""
        steps_min, critical = 1000.0, 500.0
        for size in (1.0, 100.0, 500.0, 1e5):
            at = batch.trade(size, critical)
            assert (at.steps_factor - 1) * (at.data_factor - 1) == pytest.approx(1)
            steps = at.steps_factor * steps_min
            assert size * steps == pytest.approx(at.data_factor * critical * steps_min)

    def test_the_critical_batch_doubles_both(self):
        at = batch.trade(500.0, 500.0)
        assert (at.steps_factor, at.data_factor) == (2, 2)
        assert batch.minimum_compute(1e20, 500.0, 500.0) == pytest.approx(5e19)
        assert batch.minimum_steps(4000, 500.0, 500.0) == pytest.approx(2000)

    def test_overhead(self):
        size = batch.batch_for_overhead(500.0, 0.2)
        assert batch.trade(size, 500.0).data_factor == pytest.approx(1.2)

    def test_cheapest_batch_is_a_minimum(self):
        fit = batch.StepsFit(steps_min=2000.0, data_min=4e6, rms=0.0)

        def cost(size):
            steps = fit.steps_min + fit.data_min / size
            return 3.0 * steps + 0.01 * size * steps

        best = batch.cheapest_batch(fit, cost_per_step=3.0, cost_per_data=0.01)
        assert cost(best) < min(cost(0.99 * best), cost(1.01 * best))

    def test_kaplan(self):
        """At 1 nat the constant itself; 1 / 0.21 = 4.76 in the exponent."""
        assert batch.critical_batch_kaplan(1.0) == pytest.approx(2e8)
        assert batch.critical_batch_kaplan(3.0) == pytest.approx(2e8 / 3**4.762, rel=1e-3)


class TestFit:
    def test_zhang(self, shared_data):
        """All nine batches of each size; least squares of log S."""
        folder = shared_data / "scaling"
        anchor = {a["id"]: a for a in json.loads((folder / "anchors.json").read_text())}["cbs"]
        with (folder / "critical-batch-size" / "steps_to_target.csv").open() as file:
            rows = list(csv.DictReader(file))
        sizes = sorted({float(row["params_M"]) for row in rows})
        found = []
        for size in sizes:
            runs = [row for row in rows if float(row["params_M"]) == size]
            fit = batch.fit_steps(
                np.array([float(run["batch_size_seqs"]) for run in runs]),
                np.array([float(run["steps_to_target"]) for run in runs]),
            )
            found.append(batch.batch_at_overhead(fit, reference=256, overhead=0.2))
        assert found == pytest.approx(anchor["cbs"], rel=anchor["tol"]["rel"])
        exponent, log_factor = np.polyfit(np.log(sizes), np.log(found), 1)
        law = [np.exp(log_factor), exponent]
        assert law == pytest.approx(anchor["law"], rel=anchor["tol"]["rel"])

    def test_truth_is_recovered(self):
        size = 2.0 ** np.arange(6, 15)
        fit = batch.fit_steps(size, 1300 + 2.8e6 / size)
        assert (fit.steps_min, fit.data_min) == pytest.approx((1300, 2.8e6), rel=1e-6)
        assert fit.critical == pytest.approx(2.8e6 / 1300, rel=1e-6)
        assert fit.rms < 1e-8

    def test_overhead_over_a_reference(self):
        fit = batch.StepsFit(steps_min=1300.0, data_min=2.8e6, rms=0.0)
        size = batch.batch_at_overhead(fit, reference=256, overhead=0.2)
        data = [b * (fit.steps_min + fit.data_min / b) for b in (256, size)]
        assert data[1] == pytest.approx(1.2 * data[0])

    def test_refusals(self):
        size = np.array([64.0, 128.0, 256.0])
        with pytest.raises(InputError, match="row 2"):
            batch.fit_steps(size, np.array([100.0, np.nan, 30.0]))
        with pytest.raises(InputError, match="three runs"):
            batch.fit_steps(size[:2], size[:2])
        with pytest.raises(InputError, match="two different"):
            batch.fit_steps(np.full(3, 64.0), size)
        with pytest.raises(InputError, match="add larger batches"):
            batch.fit_steps(size, 1e6 / size)


def simulated(updates, dimensions, truth, small, big, seed):
    """Squared norms of gradients with noise scale `truth`: |G|^2 = 1 and tr(Sigma) = truth."""
    random = np.random.default_rng(seed)
    gradient = np.full(dimensions, dimensions**-0.5)
    deviation = np.sqrt(truth / dimensions / small)
    shape = (updates, big // small, dimensions)
    parts = gradient + deviation * random.standard_normal(shape)
    return (parts**2).sum(axis=2).mean(axis=1), (parts.mean(axis=1) ** 2).sum(axis=1)


class TestNoiseScale:
    truth, small, big = 619.6, 64, 640

    def estimates(self, seed, updates=2000):
        small, big = simulated(updates, 100, self.truth, self.small, self.big, seed)
        return batch.noise_estimates(small, big, self.small, self.big)

    def test_estimates_are_unbiased(self):
        signal, noise = self.estimates(seed=0, updates=5000)
        for values, truth in ((signal, 1.0), (noise, self.truth)):
            error = values.std() / np.sqrt(len(values))
            assert values.mean() == pytest.approx(truth, abs=4 * error)
            assert error < 0.01 * truth

    def test_ratio_of_averages_and_not_average_of_ratios(self):
        """The second is several percent too large for the same estimates."""
        signal, noise = self.estimates(seed=1, updates=10_000)
        found = batch.noise_scale(signal, noise)
        assert found.value == pytest.approx(self.truth, rel=0.01)
        assert found.standard_error < 0.005 * self.truth
        assert found.noise / found.signal == pytest.approx(found.value)
        assert np.mean(noise / signal) > 1.05 * self.truth

    def test_standard_error_is_what_repetitions_show(self):
        found = [batch.noise_scale(*self.estimates(seed, updates=400)) for seed in range(2, 62)]
        values = np.array([f.value for f in found])
        errors = np.array([f.standard_error for f in found])
        assert errors.mean() == pytest.approx(values.std(ddof=1), rel=0.3)
        covered = np.abs(values - self.truth) < 2.1 * errors  # t of 19 degrees of freedom, 95 %
        assert covered.mean() > 0.85

    def test_neighbours_that_are_alike_do_not_shrink_the_error(self):
        """Each update twice: half the information, and the same error as once."""
        signal, noise = self.estimates(seed=3, updates=400)
        once = batch.noise_scale(signal, noise)
        twice = batch.noise_scale(np.repeat(signal, 2), np.repeat(noise, 2))
        assert twice.standard_error == pytest.approx(once.standard_error, rel=1e-9)

    def test_refusals(self):
        with pytest.raises(InputError, match="lost in its noise"):
            batch.noise_scale(np.full(40, -1.0), np.ones(40))
        with pytest.raises(InputError, match="more updates"):
            batch.noise_scale(np.ones(5), np.ones(5))
        with pytest.raises(InputError, match="not finite"):
            batch.noise_scale(np.full(40, np.nan), np.ones(40))
        with pytest.raises(InputError, match="rising"):
            batch.noise_estimates(np.ones(2), np.ones(2), 64, 64)


class TestRun:
    """A run whose noise scale is 5000 tokens at a loss of 4 and rises as loss^-3."""

    context, windows, every = 100, 20, 10

    def truth(self, loss):
        return 5000 * (loss / 4) ** -3

    def write(self, place, rows=200, seed=0, spread=0.5):
        """Estimates that scatter by `spread`, each the mean of `every` updates."""
        rng = np.random.default_rng(seed)
        place.mkdir()
        (place / "config.json").write_text(json.dumps({"model": {"context": self.context}}))
        size = self.context * self.windows
        with (place / "metrics.jsonl").open("w") as file:
            print(json.dumps({"kind": "event", "event": "started", "step": 0}), file=file)
            for number in range(1, rows + 1):
                loss, step = 4 * number**-0.1, number * self.every
                row = {"kind": "train", "step": step, "tokens": step * size, "loss": loss}
                signal = loss**2 * (1 + spread * rng.standard_normal())
                noise = self.truth(loss) * loss**2 * (1 + spread * rng.standard_normal() / 3)
                row |= {"targets": size, "gradient_signal": signal, "gradient_noise": noise}
                print(json.dumps(row), file=file)
            print('{"kind": "train", "st', file=file)
        return str(place)

    def test_stretches_recover_a_noise_scale_that_grows(self, tmp_path):
        found = measure(self.write(tmp_path / "run", spread=0.2))
        assert [each.updates for each in found.stretches] == [500] * 4
        assert (found.stretches[0].first_step, found.stretches[-1].last_step) == (1, 2000)
        for each in found.stretches[1:]:  # in the first it moves by half
            assert each.noise.value == pytest.approx(self.truth(each.loss), rel=0.1)
            assert each.interval[1] / each.interval[0] < 1.3
        assert found.growth == pytest.approx(-3, abs=0.5)
        assert found.window == self.context

    def test_intervals_cover(self, tmp_path):
        """The truth, where it stands nearly still, about as often as they say: 95 %."""
        inside = []
        for seed in range(60):
            found = measure(self.write(tmp_path / str(seed), seed=seed)).stretches[1:]
            inside += [s.interval[0] < self.truth(s.loss) < s.interval[1] for s in found]
        assert 0.9 < np.mean(inside) < 0.99

    def test_the_trade_is_that_of_the_stretches(self, tmp_path):
        """The run itself lies on its own curve; and at B_crit both are twice the least."""
        found = measure(self.write(tmp_path / "run", spread=0.0))
        size = self.context * self.windows
        assert found.steps_min + found.data_min / size == pytest.approx(2000)
        assert found.critical == pytest.approx(found.data_min / found.steps_min)
        low, high = (found.stretches[i].noise.value for i in (0, -1))
        assert low < found.critical < high
        assert found.suggested == round(found.critical / self.context)
        for steps, data, at in found.trades():
            assert steps * at.batch == pytest.approx(data)
            parts = (steps / found.steps_min - 1) * (data / found.data_min - 1)
            assert parts == pytest.approx(1)

    def test_a_weak_signal_makes_fewer_stretches(self, tmp_path):
        assert len(measure(self.write(tmp_path / "run", spread=4.0)).stretches) < 4

    def test_command(self, tmp_path):
        out = tmp_path / "batch.json"
        place = self.write(tmp_path / "run")
        command = [sys.executable, "-m", "scaling.batch", f"--workdir={place}", f"--json={out}"]
        done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        found = json.loads(out.read_text())
        assert found["critical"] == measure(place).critical
        assert len(found["trades"]) == 5
        assert f"batch.size={found['suggested_windows']}" in done.stdout
        done = subprocess.run(
            [*command[:3], f"--workdir={tmp_path}"], cwd=REPOSITORY, capture_output=True, text=True
        )
        assert done.returncode == 2
        assert done.stderr.count("\n") == 1
        assert "no run directory" in done.stderr

    def test_refusals(self, tmp_path):
        with pytest.raises(InputError, match="8 are needed"):
            measure(self.write(tmp_path / "short", rows=5))
        with pytest.raises(InputError, match="lost in its noise"):
            measure(self.write(tmp_path / "weak", rows=9, spread=40.0))
        place = tmp_path / "off"
        self.write(place)
        for name in ("gradient_signal", "gradient_noise"):
            text = (place / "metrics.jsonl").read_text()
            (place / "metrics.jsonl").write_text(text.replace(name, "other"))
        with pytest.raises(InputError, match=r"batch\.noise_scale=true"):
            measure(str(place))

"""A budget in operations, hours or money: what the command makes of its settings."""

import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from configs.schema import InputError
from scaling import laws, record
from scaling.allocate import allocate
from scaling.allocate.terms import Wanted, terms
from scaling.fit import fit
from tests.scaling.test_allocate import EPOCH, chinchilla, closed_form, near

REPOSITORY = Path(__file__).resolve().parents[2]


class TestTerms:
    """From the command's settings to the problem, in each unit."""

    law = staticmethod(chinchilla(*EPOCH))

    def best(self, **settings):
        wanted = Wanted(**settings)
        problem = terms(self.law, wanted)
        return allocate(problem.loss, problem.cost, wanted.amount, problem.sizes), problem

    def test_one_budget_in_three_units(self):
        """1000 hours at 40 % of 989e12, at 2.5 an hour, is one budget however it is stated."""
        speed = {"peak": 989e12, "mfu": 0.4}
        stated = (
            {"budget": 1000 * 3600 * 0.4 * 989e12},
            {"hours": 1000, **speed},
            {"money": 2500, "price_per_hour": 2.5, **speed},
        )
        for settings in stated:
            best, _ = self.best(**settings)
            near((best.N, best.D), closed_form(stated[0]["budget"], *EPOCH), 1e-7)
            assert best.disagreement < 1e-6

    def test_serving_in_money_is_serving_in_operations(self):
        speed = {"peak": 989e12, "mfu": 0.4, "serve_tokens": 2e12}
        operations, _ = self.best(budget=1e23, serve_tokens=2e12)
        hours = 1e23 / (989e12 * 0.4 * 3600)
        for settings in ({"hours": hours}, {"money": 2 * hours, "price_per_hour": 2}):
            best, problem = self.best(**settings, **speed)
            near((best.N, best.D), (operations.N, operations.D), 1e-6)
            assert set(problem.parts) == {"training", "serving"}
        near(operations.D, 1e23 / (6 * operations.N) - 2e12 / 3, 1e-9)

    def test_tokens_with_a_price_are_fewer_and_paid_for_once(self):
        """Until they are repeated: then more of them cost only their training."""
        settings = {"money": 1e4, "price_per_hour": 2.0, "peak": 989e12}
        free, _ = self.best(**settings)
        dear, problem = self.best(**settings, price_per_token=1e-7)
        assert dear.N > free.N
        assert dear.D < 0.7 * free.D
        at = np.array([dear.N]), np.array([dear.D])
        assert problem.parts["data"](*at)[0] == pytest.approx(dear.D * 1e-7)
        assert sum(part(*at)[0] for part in problem.parts.values()) == pytest.approx(1e4)
        scarce, problem = self.best(**settings, price_per_token=1e-7, unique_tokens=5e9)
        assert scarce.D > 5e9
        at = np.array([scarce.N]), np.array([scarce.D])
        assert problem.parts["data"](*at)[0] == pytest.approx(500)
        assert scarce.loss > dear.loss

    def write(self, place, *rows, header="N,step_seconds,tokens,devices"):
        place.write_text("\n".join((header, *rows)) + "\n")
        return str(place)

    def test_measured_steps(self, tmp_path):
        """Eight devices at 4e14 operations a second each, as fast at every size."""
        rows = [f"{n:g},{6 * n * 5e5 / 8 / 4e14},5e5,8" for n in (1e10, 1e8, 1e9)]
        table = self.write(tmp_path / "steps.csv", *rows)
        best, problem = self.best(hours=1000, step_times=table, devices=64)
        near((best.N, best.D), closed_form(1000 * 3600 * 4e14, *EPOCH), 1e-6)
        assert problem.sizes == (1e8, 1e10)
        assert problem.hours(np.array([best.N]), np.array([best.D]))[0] == pytest.approx(1000)
        small, _ = self.best(hours=0.1, step_times=table)
        assert (small.limited_by, small.N) == ("sizes", pytest.approx(1e8))

    @pytest.mark.parametrize(
        ("rows", "header", "sentence"),
        [
            (("1e8,1,5e5,8",), None, "two sizes"),
            (("1e8,1,5e5,8", "1e9,fast,5e5,8"), None, "row 2: step_seconds=fast"),
            (("1e8,1,5e5,8", "1e9,2,0,8"), None, "row 2: tokens=0"),
            (("1e8,1", "1e9,2"), "N,step_seconds", "row 1 has no tokens"),
            (("1e8,2,5e5,8", "1e9,1,5e5,8"), None, "greater than in the row before"),
        ],
    )
    def test_a_bad_table_of_steps(self, tmp_path, rows, header, sentence):
        kind = {"header": header} if header else {}
        table = self.write(tmp_path / "steps.csv", *rows, **kind)
        with pytest.raises(InputError, match=sentence):
            terms(self.law, Wanted(hours=10, step_times=table))

    @pytest.mark.parametrize(
        ("settings", "sentence"),
        [
            ({}, "no budget"),
            ({"budget": 1e20, "hours": 5}, "--budget and --hours are given together"),
            ({"budget": -1}, "--budget=-1 must be a positive"),
            ({"budget": math.nan}, "--budget=nan must be a positive"),
            ({"hours": 5}, "--hours needs the speed"),
            ({"budget": 1e20, "devices": 8}, "--devices needs the speed"),
            ({"hours": 5, "peak": 1e15, "step_times": "x.csv"}, "choose one"),
            ({"hours": 5, "peak": 1e15, "mfu": 40}, "--mfu=40 must lie in"),
            ({"money": 5, "peak": 1e15}, "--money needs --price_per_hour"),
            ({"hours": 5, "peak": 1e15, "price_per_hour": 2}, "is for --money alone"),
            ({"budget": 1e20, "price_per_token": 1e-9}, "is for a budget in money"),
            ({"budget": 1e20, "unique_tokens": 0}, "--unique_tokens=0 must be positive"),
        ],
    )
    def test_settings_that_make_no_sense(self, settings, sentence):
        with pytest.raises(InputError, match=sentence):
            Wanted(**settings)


class TestCommand:
    @pytest.fixture
    def call(self, tmp_path):
        """The command on an exact table of Chinchilla's law; its JSON and what it prints."""
        N, D = (10 ** grid.ravel() for grid in np.meshgrid(np.arange(7, 10), np.arange(9, 12)))
        fitted = fit(laws.get("chinchilla"), {"N": N, "D": D, "loss": chinchilla(*EPOCH)(N, D)})
        read = {"conventions": {"N": "non_embedding"}}
        place, out = tmp_path / "fit.json", tmp_path / "allocation.json"
        place.write_text(json.dumps(record.to_json(fitted, None, [], [], read)))

        def run(*arguments):
            command = [sys.executable, "-m", "scaling.allocate", f"--fit={place}", *arguments]
            done = subprocess.run(
                [*command, f"--json={out}"], cwd=REPOSITORY, capture_output=True, text=True
            )
            return done, json.loads(out.read_text()) if done.returncode == 0 else {}

        return run

    def test_money_shapes_and_a_size_instead(self, call):
        done, found = call(
            *("--money=5000", "--price_per_hour=2.5", "--peak=989e12", "--devices=16"),
            *("--instead=N=7e9", "--config=configs/llama_1b.py", "--shapes=3"),
        )
        assert done.returncode == 0, done.stderr
        near((found["N"], found["D"]), closed_form(2000 * 3600 * 0.4 * 989e12, *EPOCH), 1e-4)
        assert found["unit"] == "money"
        assert found["device_hours"] == pytest.approx(2000)
        assert found["wall_clock_hours"] == pytest.approx(125)
        assert found["instead"]["N"] == pytest.approx(7e9)
        assert found["instead"]["loss"] == pytest.approx(
            chinchilla(*EPOCH)(7e9, found["N"] * found["D"] / 7e9), rel=1e-5
        )
        assert len(found["shapes"]) == 3
        for shape in (*found["shapes"], *found["by_depth"]):
            assert shape["non_embedding"] == shape["N"] == pytest.approx(found["N"], rel=0.05)
            assert shape["width"] % shape["heads"] == 0
        depths = [shape["layers"] for shape in found["by_depth"]]
        assert depths == sorted(set(depths))
        assert len(depths) > 3
        assert found["suggested"]["DeepSeek"]["batch"] == pytest.approx(
            0.2920 * (6 * found["N"] * found["D"]) ** 0.3271
        )

    @pytest.mark.parametrize(
        ("arguments", "sentence"),
        [
            (("--budget=1e21", "--instead=N=7e9,D=1e9"), "give one size"),
            (("--budget=1e21", "--shapes=3"), "--config=RECIPE"),
        ],
    )
    def test_bad_input_is_one_sentence(self, call, arguments, sentence):
        done, _ = call(*arguments)
        assert done.returncode == 2
        assert sentence in done.stderr
        assert done.stderr.count("\n") == 1

"""A plan's recipe is one that exists and costs the budget; its next run is worth its cost."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from configs.flags import load
from configs.schema import Batch, Blend, Config, Data, InputError, Model, Optimizer, Schedule
from model.count import counts
from scaling import laws
from scaling.fit import fit
from scaling.plan import machine, recipe
from scaling.plan.choose import choose, planned
from scaling.plan.following import candidates, widths

REPOSITORY = Path(__file__).resolve().parents[2]
RECIPES = sorted(
    path
    for path in (REPOSITORY / "configs").glob("*.py")
    if "def get_config() -> Config" in path.read_text()
)
TRUE = {"E": 1.7, "A": 400.0, "B": 1500.0, "alpha": 0.34, "beta": 0.36}


def run_of(path):
    config = load(str(path))
    assert isinstance(config, Config)
    return config


def loss_of(N, D):
    return TRUE["E"] + TRUE["A"] / N ** TRUE["alpha"] + TRUE["B"] / D ** TRUE["beta"]


def rows(noise, seed=0):
    """20 runs with a known law."""
    random = np.random.default_rng(seed)
    N, D = (grid.ravel() for grid in np.meshgrid(np.geomspace(1e7, 3e8, 5), [3e8, 1e9, 3e9, 1e10]))
    return {"N": N, "D": D, "loss": loss_of(N, D) * np.exp(noise * random.standard_normal(20))}


def more(table, N, D, seed):
    """The rows and one more."""
    noise = np.exp(0.003 * np.random.default_rng(seed).standard_normal())
    new = {"N": N, "D": D, "loss": loss_of(N, D) * noise}
    return {name: np.append(values, new[name]) for name, values in table.items()}


@pytest.fixture(scope="module")
def found():
    return fit(laws.CHINCHILLA, rows(0.003), "squared")


@pytest.fixture(scope="module")
def base():
    model = Model(
        vocab=32_000, context=2048, layers=12, width=1024, heads=16, kv_heads=4, ffn="swiglu",
        ffn_width=2816, norm="rmsnorm", positions="rotary", bias=False, scan=True,
    )  # fmt: skip
    return Config(
        model=model,
        data=Data(path="synthetic"),
        batch=Batch(size=64),
        optimizer=Optimizer(learning_rate=1e-3),
        schedule=Schedule(warmup=100),
        steps=1000,
    )


@pytest.fixture(scope="module")
def bought(found, base):
    return choose(found, base, 3e19, "parameters")


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_that_is_written_is_the_config(path, tmp_path):
    config = run_of(path)
    recipe.write(tmp_path / "again.py", config, "The same.")
    assert load(str(tmp_path / "again.py")) == config


def test_what_a_config_derives_is_left_to_it(base, tmp_path):
    blends = (Blend(weights=(("a", 2.0), ('b"c', 1.0))), Blend(start=5, temperature=2.0))
    data = dataclasses.replace(base.data, mixture=blends)
    config = dataclasses.replace(base, data=data, batch=Batch(size=8, ramp=((10, 2), (20, 4))))
    text = recipe.to_python(config, "A recipe.")
    assert "head_dim" not in text
    assert "microbatch" not in text
    (tmp_path / "it.py").write_text(text)
    again = run_of(tmp_path / "it.py")
    assert again == config
    wider = dataclasses.replace(again.model, width=2048, heads=16)
    assert wider.head_dim == 128


@pytest.mark.parametrize("command", [("check",), ("format", "--diff")], ids=lambda c: c[0])
def test_recipes_are_in_the_formatters_form(command, base, tmp_path):
    for path in RECIPES:
        recipe.write(tmp_path / path.name, run_of(path), "The same.")
    recipe.write(tmp_path / "base.py", base, "A base.")
    settings = f"--config={REPOSITORY / 'pyproject.toml'}"
    done = subprocess.run(
        [sys.executable, "-m", "ruff", *command, settings, "--no-cache", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_budget_buys_a_model_that_exists_near_the_best(found, base, bought):
    budget, choice = 3e19, bought
    counted = counts(choice.config.model)
    assert counted.parameters == choice.shape.N
    assert abs(choice.shape.N / choice.region.best.N - 1) <= 0.05
    assert choice.region.sizes[0] < choice.shape.N < choice.region.sizes[1]
    assert choice.tokens == choice.steps * 64 * 2048 == choice.config.steps * 64 * 2048
    assert choice.flops == choice.tokens * counted.flops_per_token("palm")
    assert 0.99 * budget < choice.flops <= budget
    assert choice.config.model.heads * choice.config.model.head_dim == choice.config.model.width
    assert choice.config.model.heads % choice.config.model.kv_heads == 0
    share = choice.config.schedule.warmup / choice.steps
    assert share == pytest.approx(0.1, rel=0.01)


def test_attention_is_paid_for(found, base, bought):
    """At a longer context a token costs more, so that fewer are bought."""
    longer = dataclasses.replace(base, model=dataclasses.replace(base.model, context=16_384))
    near, far = bought, choose(found, longer, 3e19, "parameters")
    cost_near, cost_far = (each.shape.flops_per_token / each.shape.N for each in (near, far))
    assert cost_far > 1.5 * cost_near
    assert far.shape.N * far.tokens < 0.7 * near.shape.N * near.tokens


def test_size_without_embeddings_is_another_size(found, base, bought):
    without = choose(found, base, 3e19, "non_embedding")
    assert without.shape.non_embedding == without.shape.N
    assert without.shape.parameters > bought.shape.parameters


def test_a_budget_below_a_batch_is_refused(bought, base):
    large = dataclasses.replace(base, batch=Batch(size=1_000_000))
    with pytest.raises(InputError, match=r"less than 10 updates; lower batch\.size"):
        planned(large, bought.shape, bought.region, bought.tokens)


def test_the_next_run_is_worth_more_than_others_of_its_cost():
    """In simulation: refits with the run it proposes scatter as it says, and less than others'."""
    table, at = rows(0.003), {"N": 3e9, "D": 6e10}
    start = fit(laws.CHINCHILLA, table, "squared")
    tests = candidates(start, at, 3e19)
    best, worst = tests[0], tests[-1]
    assert best.width < 0.9 < worst.width <= 1
    spreads = []
    for place in (None, best, worst):
        said = []
        for seed in range(60):
            drawn = rows(0.003, seed)
            if place:
                drawn = more(drawn, place.N, place.D, 1000 + seed)
            refitted = fit(laws.CHINCHILLA, drawn, "squared")
            said.append(refitted.law.predict(refitted.parameters, at))
        spreads.append(np.std(np.log(said)))
    before, after, other = spreads
    assert after / before == pytest.approx(best.width, rel=0.2)
    assert other > 1.1 * after


def test_a_run_at_the_place_itself_narrows_it_most():
    start = fit(laws.CHINCHILLA, rows(0.003), "squared")
    at = {"N": 3e9, "D": 6e10}
    there, elsewhere = widths(start, at, np.array([3e9, 1e7]), np.array([6e10, 3e8]))
    assert there < 0.7 < elsewhere
    again = widths(start, at, np.array([3e9]), np.array([6e10]))
    assert again[0] == pytest.approx(there)  # whatever else was asked for


def test_a_budget_that_buys_nothing_like_the_table_is_refused(found):
    with pytest.raises(InputError, match="pays for no run like those of the table"):
        candidates(found, {"N": 3e9, "D": 6e10}, 1e6)


@pytest.fixture(scope="module")
def fit_file(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plan")
    table = rows(0.003)
    lines = [",".join(map(repr, map(float, row))) for row in zip(*table.values(), strict=True)]
    (folder / "runs.csv").write_text("N,D,loss\n" + "\n".join(lines) + "\n")
    command("scaling.fit", f"--table={folder / 'runs.csv'}", f"--json={folder / 'fit.json'}")
    return folder / "fit.json"


def command(module, *arguments, check=0):
    done = subprocess.run(
        [sys.executable, "-m", module, *map(str, arguments)],
        cwd=REPOSITORY,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == check, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_the_command_writes_a_plan_for_a_machine_that_cannot_be_compiled_for(fit_file, tmp_path):
    out, values = tmp_path / "plan.py", tmp_path / "plan.json"
    said = command(
        "scaling.plan", f"--fit={fit_file}", "--hours=20", "--config=configs/llama_1b.py",
        "--topology=h200:8", "--price_per_hour=3", f"--out={out}", f"--json={values}",
    )  # fmt: skip
    plan = json.loads(values.read_text())
    config = run_of(out)
    assert plan["N"] == counts(config.model).parameters
    low, middle, high = (plan["price"][name] for name in ("lower", "expected", "upper"))
    assert low < middle < high
    assert middle == pytest.approx(3 * 8 * plan["hours"]["hours"])
    if "could not be compiled" in said:  # without JAX's CUDA plugin
        assert plan["hours"]["hours"] == pytest.approx(20, rel=0.01)  # 40 % of the peak, both ways
    assert plan["loss"]["lower"] < plan["loss"]["prediction"] < plan["loss"]["upper"]
    intervals = [each["interval"] for each in plan["next"]]
    assert intervals == sorted(intervals)
    assert 0 < intervals[0] < 0.9
    assert plan["next"][0]["flops"] <= 1.01 * plan["flops"] / 10


@pytest.mark.slow
def test_a_machine_that_can_be_compiled_for_gives_memory(fit_file, base, tmp_path):
    small = dataclasses.replace(base, batch=Batch(size=8))
    path = tmp_path / "base.py"
    recipe.write(path, small, "A base.")
    on = machine.describe("cpu:2")
    assert (on.devices, on.peak) == (2, 0)
    with pytest.raises(InputError, match="nobody publishes the speed of these devices"):
        machine.hours(path, 100, 1e15, on, ["--config.mesh.fsdp=-1", "--config.mesh.data=1"])


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--out=plan.txt", "--budget=1e20"], "a recipe is a file NAME.py"),
        (["--out=plan.py"], "give one of --budget"),
        (["--out=plan.py", "--hours=3"], "--hours needs --topology"),
        (["--out=plan.py", "--budget=1e20", "--topology=h3:8"], "no such topology"),
    ],
)
def test_wrong_input_is_one_sentence(fit_file, flags, says):
    said = command(
        "scaling.plan", f"--fit={fit_file}", "--config=configs/llama_1b.py", *flags, check=2
    )
    assert says in said.splitlines()[-1]
    assert "Traceback" not in said

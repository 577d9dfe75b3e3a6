"""muP in time: how large updates are, and that what they do does not depend on width or depth."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import model
from configs.schema import Batch, Config, Data, InputError, Model, Optimizer
from data.store import open_store
from train import coordinates, optimizers
from train.coordinates import compare, family, member, row, standard

# Four times the width; heads twice as wide and twice as many.
WIDE = Model(
    vocab=50, context=8, layers=1, width=64, heads=4, qk_norm=True, tied=False, bias=False,
    parametrization="mup", base_width=16, base_head_dim=8,
)  # fmt: skip


def config(network=WIDE, name="adamw", **settings) -> Config:
    settings = {"learning_rate": 0.01, "clip_norm": 0.0, "beta1": 0.0, **settings}
    return Config(
        model=network,
        data=Data(path="synthetic"),
        batch=Batch(size=4),
        optimizer=Optimizer(name=name, **settings),
        steps=100,
    )


def update(config, gradients, params):
    """What the first update subtracts."""
    optimizer = optimizers.build(config, model.declare(config.model))
    updates, _ = jax.jit(optimizer.update)(gradients, optimizer.init(params), params)
    return jax.tree.map(jnp.negative, updates)


def draw(network, seed):
    leaves, tree = jax.tree.flatten(model.declare(network))
    rng = np.random.default_rng(seed)
    drawn = [jnp.asarray(rng.standard_normal(leaf.shape), jnp.float32) for leaf in leaves]
    return jax.tree.unflatten(tree, drawn)


# What an update is multiplied by: token table, output table, scale of the width, scale of a head,
# a matrix of a block.
BY_HAND = {
    "adam": (1, 1, 1, 1, 1 / 4),
    "adamw": (1, 1, 1, 1, 1 / 4),
    "rmsprop": (1, 1, 1, 1, 1 / 4),
    "lion": (1, 1, 1, 1, 1 / 4),
    "sgd": (4, 4, 4, 2, 1),
    "muon": (1, 1, 1, 1, 1 / 2),
}


class TestUpdates:
    @pytest.mark.parametrize("name", BY_HAND)
    def test_sizes_at_four_times_the_width(self, name):
        params, gradients = draw(WIDE, 0), draw(WIDE, 1)
        mup, usual = (
            update(config(network, name), gradients, params) for network in (WIDE, standard(WIDE))
        )
        block = ("layer_0", "attention")
        paths = (
            ("embedding", "tokens"),
            ("embedding", "output"),
            ("final_norm", "scale"),
            (*block, "query_norm", "scale"),
            (*block, "query", "kernel"),
        )
        for path, factor in zip(paths, BY_HAND[name], strict=True):
            wide, plain = mup, usual
            for part in path:
                wide, plain = wide[part], plain[part]
            np.testing.assert_allclose(wide, factor * plain, rtol=2e-3, atol=1e-9, err_msg=path)

    def test_muons_spectral_norm_goes_as_the_root_of_outputs_over_inputs(self):
        """Twice the inputs and eight times the outputs: twice the norm, whatever the gradient."""

        def norm(shape, growth):
            axes = ("width", "ffn")
            sides = ((0,), (1,))
            declared = model.Parameter(shape, axes, "matrix", True, 0.02, 0.0, sides, growth)
            gradient = jax.random.normal(jax.random.key(0), shape)
            optimizer = optimizers.build(config(name="muon"), declared)
            made, _ = optimizer.update(gradient, optimizer.init(gradient), gradient)
            return np.linalg.svd(made, compute_uv=False).max()

        assert norm((32, 128), (2, 8)) == pytest.approx(2 * norm((16, 16), (1, 1)), rel=0.15)

    @pytest.mark.parametrize("name", ["adamw", "muon"])
    def test_weights_decay_alike_at_all_widths(self, name):
        settings = {"weight_decay": 0.1, "learning_rate": 0.01}
        params, none = draw(WIDE, 0), jax.tree.map(jnp.zeros_like, draw(WIDE, 0))
        made = update(config(WIDE, name, **settings), none, params)["layer_0"]["ffn"]["up"]
        kernel = params["layer_0"]["ffn"]["up"]["kernel"]
        np.testing.assert_allclose(made["kernel"], 0.001 * kernel, rtol=1e-5)

    def test_epsilon_falls_with_the_gradients(self):
        """Gradients a quarter as large lose as little to epsilon."""
        deep = dataclasses.replace(WIDE, layers=2, base_layers=1)  # halves them once more
        params, gradients = draw(deep, 0), draw(deep, 1)
        small = jax.tree.map(lambda g: g / 8, gradients)
        mup = update(config(deep, epsilon=1.0), small, params)
        usual = update(config(standard(deep), epsilon=1.0), gradients, params)
        for part in ("final_norm", "embedding"):
            jax.tree.map(
                lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), mup[part], usual[part]
            )

    def test_the_state_is_that_of_the_standard_optimizer(self):
        """So checkpoints of either are laid out alike."""
        params = draw(WIDE, 0)
        mup, usual = (
            optimizers.build(config(network, "muon"), model.declare(network)).init(params)
            for network in (WIDE, standard(WIDE))
        )
        paths = [[path for path, _ in jax.tree.leaves_with_path(state)] for state in (mup, usual)]
        assert paths[0] == paths[1]

    @pytest.mark.parametrize(
        ("name", "changes", "words"),
        [
            ("adafactor", {}, "for which model.parametrization=mup is not derived"),
            ("sgd", {"base_layers": 1}, "base_layers=1 is not derived for optimizer.name=sgd"),
        ],
    )
    def test_what_is_not_derived_is_refused(self, name, changes, words):
        network = dataclasses.replace(WIDE, **changes)
        with pytest.raises(InputError, match=words):
            optimizers.build(config(network, name), model.declare(network))


def ratios(network):
    return network.width_ratio, network.head_ratio, network.depth_ratio


class TestFamily:
    def test_heads_grow_or_their_width(self):
        base = Model(vocab=50, context=8, layers=2, width=32, heads=4, kv_heads=2, ffn_width=48)
        many = member(base, 64, 3)
        assert (many.heads, many.kv_heads, many.head_dim, many.ffn_width) == (8, 4, 8, 96)
        large = member(base, 64, 3, "head_dim")
        assert (large.heads, large.kv_heads, large.head_dim, large.ffn_width) == (4, 2, 16, 96)
        assert (large.width, large.layers) == (64, 3)

    def test_the_first_is_the_base(self):
        base = Model(vocab=50, context=8, layers=2, width=64, heads=4)
        wide = family(base, [32, 64], [2, 2], "head_dim")
        assert [ratios(network) for network in wide] == [(1, 1, 1), (2, 2, 1)]
        deep = family(base, [64, 64], [2, 6], "heads")
        assert [ratios(network) for network in deep] == [(1, 1, 1), (1, 1, 3)]

    def test_a_recipes_own_base_stays(self):
        base = Model(vocab=50, context=8, layers=2, width=64, heads=4, parametrization="mup",
                     base_width=32, base_head_dim=8)  # fmt: skip
        wide = family(base, [16, 128], [2, 2], "head_dim")
        assert [ratios(network) for network in wide] == [(0.5, 0.5, 1), (4, 4, 1)]

    def test_a_broken_head_is_refused(self):
        base = Model(vocab=50, context=8, layers=2, width=32, heads=4)
        with pytest.raises(InputError, match=r"width 36: model.heads=4 at width 32"):
            member(base, 36, 2)


class TestRows:
    def test_slopes_of_powers(self):
        assert row([2, 4, 8], [3.0, 12.0, 48.0]).slope == pytest.approx(2)
        assert row([2, 4, 8], [3.0, 12.0, 48.0]).verdict == "grows"
        assert row([2, 4], [2.0, 1.0]).verdict == "shrinks"
        assert row([2, 4, 8], [1.0, 1.05, 1.1]).verdict == "flat"

    def test_what_has_no_slope(self):
        assert row([2, 4], [0.0, 1.0])[1:] == (None, "zero")
        assert row([2, 4], [float("nan"), 1.0])[1:] == (None, "not finite")


@pytest.mark.parametrize("values", [["64"], ["64", "64"], ["64", "x"], ["0", "64"]])
def test_sizes_that_make_no_slope_are_refused(values):
    with pytest.raises(InputError, match="--widths="):
        coordinates._sizes("widths", values)


class TestCheck:
    """Real updates on text: in muP no change grows with size, and otherwise nearly all do."""

    def slopes(self, store_path, name, rate, networks, of):
        settings = config(networks[0], name, learning_rate=rate, beta1=0.9)
        table = compare(settings, networks, of, open_store(store_path), 3)
        return {what: found.slope for what, found in table["change"].items()}

    def network(self, **changes):
        return Model(
            **{"vocab": 257, "context": 32, "layers": 1, "width": 32, "heads": 2, "ffn": "relu2",
               "norm": "rmsnorm", "positions": "rotary", "bias": False, **changes}
        )  # fmt: skip

    @pytest.mark.slow
    @pytest.mark.parametrize(("name", "rate"), [("adamw", 0.002), ("muon", 0.02)])
    def test_width(self, name, rate, store_path):
        widths = [32, 128]
        networks = family(self.network(), widths, [1, 1], "heads")
        flat = self.slopes(store_path, name, rate, networks, widths)
        assert max(map(abs, flat.values())) < 0.35, flat
        usual = self.slopes(store_path, name, rate, [standard(n) for n in networks], widths)
        assert min(usual["logits"], usual["ffn writes, last layer"]) > 0.55, usual

    @pytest.mark.slow
    def test_depth(self, store_path):
        depths = [2, 8]
        networks = family(self.network(), [32, 32], depths, "heads")
        flat = self.slopes(store_path, "adamw", 0.004, networks, depths)
        usual = self.slopes(store_path, "adamw", 0.004, [standard(n) for n in networks], depths)
        assert abs(flat["stream, last layer"]) < 0.15 < 0.3 < usual["stream, last layer"]


@pytest.mark.slow
def test_the_command_prints_and_writes_both_tables(store_path, tmp_path):
    network = TestCheck().network()
    recipe = tmp_path / "recipe.py"
    settings = dataclasses.replace(config(network, clip_norm=1.0), data=Data(path=str(store_path)))
    recipe.write_text(f"from configs.schema import *\nget_config = lambda: {settings!r}\n")
    command = [sys.executable, "-m", "train.coordinates", f"--config={recipe}", "--steps=1"]
    command += ["--widths=16,32", f"--json={tmp_path}/a.json", f"--plot={tmp_path}/a.png"]
    done = subprocess.run(
        command,
        cwd=Path(__file__).parents[2],
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("what the updates change is flat") == 2
    written = json.loads((tmp_path / "a.json").read_text())["width"]
    assert written["of"] == [16, 32]
    first = {name: written[name]["change"]["logits"]["sizes"][0] for name in ("standard", "mup")}
    assert first["standard"] == first["mup"] > 0
    assert (tmp_path / "a.png").stat().st_size > 10_000

"""Every recipe builds, launches as its docstring says, and has the size its source names."""

import ast
from pathlib import Path

import pytest

from configs.corpus import Corpus
from configs.flags import load
from configs.schema import Config

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
MODULES = {"__init__", "corpus", "flags", "overrides", "schema"}
RECIPES = sorted(path for path in CONFIGS.glob("*.py") if path.stem not in MODULES)
CORPORA = sorted((CONFIGS / "corpora").glob("*.py"))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_recipe_builds_and_says_how_to_run_it(path):
    assert isinstance(load(str(path)), Config)
    launch = f"python -m train --config=configs/{path.name} --workdir=runs/{path.stem}\n"
    assert launch in (ast.get_docstring(ast.parse(path.read_text())) or "")


@pytest.mark.parametrize("path", CORPORA, ids=lambda path: path.stem)
def test_corpus_builds(path):
    assert isinstance(load(str(path)), Corpus)


def test_the_promised_recipes_are_there():
    assert {path.stem for path in RECIPES} >= {
        "quickstart",
        "shakespeare_char",
        "gpt2_small",
        "gpt3_6b7",
        "gpt3_175b",
        "llama_1b",
        "llama_8b",
    }


def recipe(name: str) -> Config:
    config = load(str(CONFIGS / f"{name}.py"))
    assert isinstance(config, Config)
    return config


def matrices_and_tables(config: Config) -> int:
    """Parameters by hand, without those of norms and biases, which are few."""
    m = config.model
    attention = 2 * m.width * m.head_dim * (m.heads + m.kv_heads)
    feed_forward = (3 if m.ffn == "swiglu" else 2) * m.width * m.ffn_width
    tables = m.vocab * m.width * (1 if m.tied else 2)
    positions = m.context * m.width if m.positions == "learned" else 0
    return m.layers * (attention + feed_forward) + tables + positions


# The count its authors publish, to the digits they publish.
@pytest.mark.parametrize(
    ("name", "published"),
    [
        ("gpt2_small", 124.3e6),  # nanoGPT, without biases
        ("gpt3_6b7", 6.66e9),  # Brown et al. 2020, Table D.1
        ("gpt3_175b", 174.6e9),
        ("llama_1b", 1.24e9),  # model cards
        ("llama_8b", 8.03e9),
    ],
)
def test_recipe_has_the_published_size(name, published):
    assert matrices_and_tables(recipe(name)) == pytest.approx(published, rel=0.005)


@pytest.mark.parametrize(
    ("name", "batch_tokens", "ramp_tokens"),
    [("gpt3_6b7", 2e6, 8e9), ("gpt3_175b", 3.2e6, 12e9)],
)
def test_gpt3_batches_grow_as_published(name, batch_tokens, ramp_tokens):
    config = recipe(name)
    context = config.model.context

    def tokens_at(step: int) -> int:
        return context * config.batch.windows_before(step)

    assert context * config.batch.size_at(0) == 32 * 1024
    assert context * config.batch.size == pytest.approx(batch_tokens, rel=0.05)
    assert tokens_at(config.batch.ramp[-1][0]) == pytest.approx(ramp_tokens, rel=0.02)
    assert tokens_at(config.schedule.warmup) == pytest.approx(375e6, rel=0.01)
    assert tokens_at(config.steps) == pytest.approx(300e9, rel=0.01)

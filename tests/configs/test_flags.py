"""The command line, through real processes: what is said, where, and with which exit code."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from configs import flags
from configs.overrides import apply, keys
from configs.schema import Config, InputError

REPOSITORY = Path(__file__).resolve().parents[2]

COMMAND = '''"""A command for the tests.

Example: python command.py --config=configs/quickstart.py
"""

import logging

from absl import flags as absl_flags

from configs.flags import define_recipe, main
from configs.schema import Config, InputError

_RECIPE = define_recipe(Config)
_WORKDIR = absl_flags.DEFINE_string("workdir", None, "the folder of the run")


def run() -> int | None:
    config = _RECIPE.load()
    logging.getLogger("a.library").info("chatter")
    if _WORKDIR.value == "interrupt":
        raise KeyboardInterrupt
    print(f"layers={config.model.layers} ffn_width={config.model.ffn_width}")
    return 75 if _WORKDIR.value == "again" else None


if __name__ == "__main__":
    main(run, _RECIPE)
'''


@pytest.fixture(scope="module")
def command(tmp_path_factory):
    """Run the command above with these arguments, from the repository."""
    script = tmp_path_factory.mktemp("command") / "command.py"
    script.write_text(COMMAND)

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-W", "error", str(script), *arguments],
            cwd=REPOSITORY,
            env={"PYTHONPATH": str(REPOSITORY), "PATH": ""},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return run


RECIPE = "--config=configs/quickstart.py"


def test_overrides_are_applied_and_printed(command):
    result = command(RECIPE, "--config.model.layers=7", "-config.model.width=96")
    assert (result.returncode, result.stderr) == (0, "")
    assert re.search(r"^config\.model\.layers: \d+ -> 7$", result.stdout, re.MULTILINE)
    assert re.search(r"^config\.model\.width: \d+ -> 96$", result.stdout, re.MULTILINE)
    assert result.stdout.splitlines()[-1].startswith("layers=7 ")


def test_exit_code_of_the_command_is_passed_on(command):
    assert command(RECIPE, "--workdir=again").returncode == 75
    interrupted = command(RECIPE, "--workdir=interrupt")
    assert (interrupted.returncode, interrupted.stderr) == (130, "interrupted\n")


def test_help_names_every_flag_and_every_setting(command):
    result = command("--help")
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.startswith("A command for the tests.\n\nExample:")
    assert "--workdir: the folder of the run" in result.stdout
    assert "--config: " in result.stdout
    for key in keys(Config):
        assert f"\n  {key}: " in result.stdout


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            ["--config.model.layers=7"],
            "--config.model.layers=7: there is no --config=FILE to change",
        ),
        ([], "no recipe: name one with --config=FILE, a file in configs/"),
        ([RECIPE, "--workdri=x"], "Unknown command line flag 'workdri'. Did you mean: workdir ?"),
        ([RECIPE, "fast"], "fast: settings are written --name=value, see --help"),
        (
            [RECIPE, "--config.model.layer=7"],
            "--config.model.layer: no such setting; did you mean model.layers?",
        ),
        (
            [RECIPE, "--config.model.layers=many"],
            "--config.model.layers=many: write a whole number",
        ),
        (
            [RECIPE, "--config.model.ffn=geglu"],
            "--config.model.ffn=geglu: choose one of gelu, relu2, swiglu",
        ),
        (
            [RECIPE, "--config.model.width=96", "--config.model.heads=7"],
            "model.heads=7 does not divide model.width=96: choose a divisor, or set model.head_dim",
        ),
        (
            ["--config=configs/quickstrat.py"],
            "configs/quickstrat.py: no such recipe; did you mean configs/quickstart.py?",
        ),
        (
            ["--config=configs/corpora/quickstart.py"],
            "configs/corpora/quickstart.py describes a Corpus, and this command needs a Config: "
            "name another recipe",
        ),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(command, arguments, sentence):
    result = command(*arguments)
    assert (result.returncode, result.stdout, result.stderr) == (2, "", f"error: {sentence}\n")


def quickstart() -> Config:
    config = flags.load(str(REPOSITORY / "configs" / "quickstart.py"))
    assert isinstance(config, Config)
    return config


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("steps=7000", 7000),
        ("z_loss=1e-4", 1e-4),
        ("data.path=a=b", "a=b"),
        ("evaluation.prompt=", ""),
        ("model.bias=true", True),
        ("model.scan=False", False),
        ("model.norm=layernorm", "layernorm"),
        ("model.windows=128,128,0", (128, 128, 0)),
        ("batch.ramp=100:8,200:16", ((100, 8), (200, 16))),
        ("batch.ramp=", ()),
    ],
)
def test_override_of_every_type(override, value):
    config: object = apply(quickstart(), ["batch.size=32", override])
    for name in override.partition("=")[0].split("."):
        config = getattr(config, name)
    assert config == value
    assert type(config) is type(value)


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("model", "--config.model: a section, not a setting; set one of model.kind, "),
        ("steps", "--config.steps: write the value as --config.steps=VALUE"),
        ("steps=1.5", "--config.steps=1.5: write a whole number"),
        ("steps=0", "steps=0 must be positive"),
        ("z_loss=much", "--config.z_loss=much: write a number"),
        ("z_loss=nan", "--config.z_loss=nan: write a number, and a finite one"),
        ("model.bias=1", "--config.model.bias=1: write true or false"),
        ("model.windows=1,a", "--config.model.windows=1,a: write whole numbers such as 128,128,0"),
        ("batch.ramp=8,16", "--config.batch.ramp=8,16: write pairs of whole numbers such as "),
        ("xyzzy=1", "--config.xyzzy: no such setting, see --help"),
    ],
)
def test_override_refused(override, sentence):
    with pytest.raises(InputError, match=f"^{re.escape(sentence)}"):
        apply(quickstart(), [override])


def test_overrides_are_judged_together():
    """Neither head count nor width of the second model fits the first one's other half."""
    model = apply(quickstart(), ["model.heads=5", "model.width=320"]).model
    assert (model.heads, model.kv_heads, model.head_dim) == (5, 5, 64)


def test_a_list_of_sources_is_not_for_the_command_line():
    corpus = flags.load(str(REPOSITORY / "configs" / "corpora" / "quickstart.py"))
    with pytest.raises(InputError, match="edit the recipe instead"):
        apply(corpus, ["sources=text"])


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("x = 1\n", "recipe.py: a recipe defines get_config(), and this file does not"),
        ("def get_config():\n    return 3\n", "recipe.py: get_config() must return a Config or a"),
        ("def get_config():\n    return 1 / 0\n", "recipe.py, line 2: ZeroDivisionError: division"),
        ("import nothing_here\n", "recipe.py, line 1: ModuleNotFoundError: No module named"),
        ("def get_config(:\n", "recipe.py: SyntaxError: "),
        (
            "from configs.schema import Batch\n\n\ndef get_config():\n    return Batch(size=0)\n",
            "recipe.py: batch.size and the sizes in batch.ramp must be positive",
        ),
    ],
)
def test_a_broken_recipe_is_named(tmp_path, monkeypatch, text, sentence):
    monkeypatch.chdir(tmp_path)
    Path("recipe.py").write_text(text)
    with pytest.raises(InputError, match=f"^{re.escape(sentence)}"):
        flags.load("recipe.py")

"""What the model writes as it learns, kept in the run directory."""

from pathlib import Path
from typing import Any

import model
from configs.schema import Config
from data.tokenizer import Tokenizer
from parallel.agreement import is_first
from train.generation import compile_ahead, generate
from train.record import SAMPLES
from train.sampling import Sampling

SAMPLING = Sampling(temperature=0.8, top_p=0.95)


def compile_sample(config: Config, params: model.Params, tokenizer: Tokenizer) -> None:
    """Compile what `write_sample` runs, for parameters of these shapes."""
    if config.evaluation.sample_tokens:
        compile_ahead(config.model, params, tokenizer, **_what(config))


def _what(config: Config) -> dict[str, Any]:
    settings = config.evaluation
    return {
        "prompts": [settings.prompt],
        "max_tokens": settings.sample_tokens,
        "sampling": SAMPLING,
    }


def write_sample(
    workdir: Path, step: int, config: Config, params: model.Params, tokenizer: Tokenizer
) -> None:
    """Continue evaluation.prompt, always with the same seed, into samples/<step>.txt.

    All processes compute it, and the first writes.
    """
    if not config.evaluation.sample_tokens:
        return
    (text,) = generate(config.model, params, tokenizer, **_what(config))
    if not is_first():
        return
    try:
        (workdir / SAMPLES).mkdir(exist_ok=True)
        (workdir / SAMPLES / f"{step:08d}.txt").write_text(text.prompt + text.text + "\n")
    except OSError as error:
        print(f"warning: the sample of step {step} was not written ({error}); training goes on")

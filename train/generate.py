"""Text written by a trained model.

    python -m train.generate --workdir=DIR --prompt="def main(" [--prompt=ANOTHER ...]

A text ends with the document that the model writes, after --max_tokens, or where the model's
context is full; the output says which. Prompts of any lengths are continued together, each as it
would be alone, and the same seed gives the same texts.
"""

import json
import sys
from pathlib import Path

from absl import flags

from configs import flags as config_flags
from train.generation import generate
from train.load import load_run
from train.sampling import Sampling

_WORKDIR = flags.DEFINE_string("workdir", None, "the run directory", required=True)
_PROMPT = flags.DEFINE_multi_string("prompt", [""], "what to continue; may be given several times")
_TEMPERATURE = flags.DEFINE_float("temperature", 0.8, "spread of the choices; 0: greedy")
_TOP_K = flags.DEFINE_integer("top_k", 0, "draw from the k most probable tokens; 0: from all")
_TOP_P = flags.DEFINE_float("top_p", 1.0, "then from the fewest whose probability reaches p")
_SAMPLES = flags.DEFINE_integer("num_samples", 1, "texts for each prompt", lower_bound=1)
_SEED = flags.DEFINE_integer("seed", 0, "the same seed and prompt give the same texts")
_TOKENS = flags.DEFINE_integer("max_tokens", 256, "tokens to write at most", lower_bound=1)
_CHECKPOINT = flags.DEFINE_string("checkpoint", "latest", "latest, best or a step")
_JSON = flags.DEFINE_boolean("json", False, "print one JSON object for each text")


def run() -> None:
    """The command."""
    trained = load_run(Path(_WORKDIR.value), _CHECKPOINT.value)
    print(f"{_WORKDIR.value}, step {trained.step}", file=sys.stderr)
    texts = generate(
        trained.config.model,
        trained.params,
        trained.tokenizer,
        _PROMPT.value,
        max_tokens=_TOKENS.value,
        sampling=Sampling(_TEMPERATURE.value, _TOP_K.value, _TOP_P.value),
        samples=_SAMPLES.value,
        seed=_SEED.value,
    )
    for text in texts:
        if _JSON.value:
            print(json.dumps(text._asdict()))
        else:
            print(f"--- ended by: {text.ended}\n{text.prompt}{text.text}")


if __name__ == "__main__":
    config_flags.main(run)

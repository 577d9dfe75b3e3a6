"""How well a trained model predicts held-out text.

    python -m train.evaluate --workdir=DIR [--data=STORE] [--checkpoint=latest] [--json=FILE]

Prints the loss in nats a token with its standard error over windows, perplexity and bits per byte,
for the whole validation split and for each source.
"""

import json
from pathlib import Path

from absl import flags

from configs import flags as config_flags
from configs.schema import require
from data.disk import writing
from data.store import open_store
from train.evaluation import evaluate
from train.load import load_run
from train.report import evaluation_line
from train.step import make_evaluation

_WORKDIR = flags.DEFINE_string("workdir", None, "the run directory", required=True)
_DATA = flags.DEFINE_string("data", "", "another token store than the run's, same tokenizer")
_CHECKPOINT = flags.DEFINE_string("checkpoint", "latest", "latest, best or a step")
_JSON = flags.DEFINE_string("json", "", "write the result to this file, too")


def run() -> None:
    """The command."""
    trained = load_run(Path(_WORKDIR.value), _CHECKPOINT.value)
    config, own = trained.config, trained.tokenizer
    store = open_store(_DATA.value or config.data.path)
    require(
        store.tokenizer().fingerprint == own.fingerprint,
        f"{store.path} was built with another tokenizer than the run's: build it again with "
        f"--tokenizer={_WORKDIR.value}/{own.file}",
    )
    sums = make_evaluation(config, store.eod, trained.mesh)
    result = {
        "step": trained.step,
        "data": str(store.path),
        **evaluate(config, store, trained.params, sums, trained.mesh),
    }
    print(f"{_WORKDIR.value}, step {trained.step}, on {store.path}")
    for name, part in ({"all": result} | result["sources"]).items():
        print(f"{name}: {evaluation_line(part)}")
    if _JSON.value:
        with writing(Path(_JSON.value)):
            Path(_JSON.value).write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    config_flags.main(run)

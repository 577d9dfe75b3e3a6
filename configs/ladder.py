"""The base of a ladder of small runs on two CPU cores; docs/ladder.md has the ladder itself.

    make ladder

or its smallest run alone, without a decay, with the text of configs/corpora/ladder.py:

    python -m train --config=configs/ladder.py --workdir=runs/ladder

Today's usual architecture in small: rotary positions, RMSNorm, QK-norm, squared ReLU, no biases.
muP carries the learning rates, found at the base width, to the other widths. Bytes are the tokens;
the batch is small and constant, and the rate falls linearly to 0 over the last fifth.
"""

from configs.schema import Batch, Config, Data, Evaluation, Model, Optimizer, Schedule


def get_config() -> Config:
    """The recipe, see above."""
    return Config(
        model=Model(
            vocab=257,
            context=128,
            layers=4,
            width=32,
            heads=2,
            ffn="relu2",
            norm="rmsnorm",
            positions="rotary",
            qk_norm=True,
            bias=False,
            parametrization="mup",
            base_width=32,
        ),
        data=Data(path="runs/ladder/data"),
        batch=Batch(size=16),
        optimizer=Optimizer(name="muon", learning_rate=0.014, rest_learning_rate=0.03, beta2=0.99),
        schedule=Schedule(kind="wsd", warmup=10, final=0.0),
        evaluation=Evaluation(windows=4096, batch=64, sample_tokens=0),
        steps=1000,
    )

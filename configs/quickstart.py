"""A small transformer that learns to write Python in minutes on two CPU cores.

    make quickstart

which is the same as

    python -m data.build --config=configs/corpora/quickstart.py --out=runs/quickstart/data
    python -m train --config=configs/quickstart.py --workdir=runs/quickstart

The text is the source code of the standard library of the Python that runs it, so nothing is
downloaded. The architecture is today's usual one in small: rotary positions, RMSNorm, QK-norm,
squared ReLU, no biases, and Muon for the matrices. The size was chosen for the best text that three
minutes of training buy.
"""

from configs.schema import Batch, Checkpoints, Config, Data, Evaluation, Model, Optimizer, Schedule


def get_config() -> Config:
    """The recipe, see above."""
    return Config(
        model=Model(
            vocab=2048,
            context=256,
            layers=4,
            width=192,
            heads=6,
            ffn="relu2",
            norm="rmsnorm",
            positions="rotary",
            qk_norm=True,
            bias=False,
            residual_init="zero",
        ),
        data=Data(path="runs/quickstart/data"),
        batch=Batch(size=16),
        optimizer=Optimizer(
            name="muon", learning_rate=0.012, rest_learning_rate=0.01, weight_decay=0.1
        ),
        schedule=Schedule(kind="linear", warmup=15, final=0.0),
        evaluation=Evaluation(
            every=80, windows=64, prompt="    def __init__(self, ", sample_tokens=192
        ),
        checkpoints=Checkpoints(every=80),
        steps=240,
    )

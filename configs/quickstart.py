"""A small transformer that learns to write Python in minutes on two CPU cores.

    make quickstart

which is the same as

    python -m data.build --config=configs/corpora/quickstart.py --out=runs/quickstart/data
    python -m train --config=configs/quickstart.py --workdir=runs/quickstart

The text is the source code of the standard library of the Python that runs it, so nothing is
downloaded. The architecture is today's usual one in small: rotary positions, RMSNorm, SwiGLU, no
biases. The numbers are our own, chosen for the best loss that fits the time.
"""

from configs.schema import Batch, Config, Data, Evaluation, Model, Optimizer, Schedule


def get_config() -> Config:
    """The recipe, see above."""
    return Config(
        model=Model(
            vocab=4096,
            context=256,
            layers=4,
            width=192,
            heads=6,
            ffn="swiglu",
            ffn_width=512,
            norm="rmsnorm",
            positions="rotary",
            bias=False,
        ),
        data=Data(path="runs/quickstart/data"),
        batch=Batch(size=16),
        optimizer=Optimizer(learning_rate=2e-3, weight_decay=0.1),
        schedule=Schedule(kind="cosine", warmup=50, final=0.1),
        evaluation=Evaluation(every=200, windows=64, prompt="def ", sample_tokens=256),
        steps=1000,
    )

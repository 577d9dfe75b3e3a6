r"""Shakespeare by characters, with the settings nanoGPT gives for a CPU.

    python -m data.build --config=configs/corpora/shakespeare_char.py \
        --sources=text:PATH/tinyshakespeare.txt --out=runs/shakespeare_char/data
    python -m train --config=configs/shakespeare_char.py --workdir=runs/shakespeare_char

Made for a CPU. Source: nanoGPT (github.com/karpathy/nanoGPT), README, "I only
have a macbook", and config/train_shakespeare_char.py; it ends near 1.88 nats a character. What
differs: an end-of-document character joins the 65 of the text.
"""

from configs.schema import Batch, Config, Data, Evaluation, Model, Optimizer, Schedule


def get_config() -> Config:
    """The recipe, see above."""
    return Config(
        model=Model(vocab=66, context=64, layers=4, width=128, heads=4, bias=False),
        data=Data(path="runs/shakespeare_char/data"),
        batch=Batch(size=12),
        optimizer=Optimizer(learning_rate=1e-3, beta2=0.99, weight_decay=0.1),
        schedule=Schedule(kind="cosine", warmup=100, final=0.1),
        evaluation=Evaluation(every=250),
        steps=2000,
    )

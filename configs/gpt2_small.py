"""GPT-2 small, as nanoGPT trains it on web text.

    python -m data.build --sources="jsonl:FOLDER/*.jsonl.zst" --tokenizer=bpe:50257 --out=runs/web
    python -m train --config=configs/gpt2_small.py --workdir=runs/gpt2_small

About four days on eight A100 in nanoGPT's account. Source: nanoGPT (github.com/karpathy/nanoGPT),
config/train_gpt2.py and the defaults of train.py: batches of half a million tokens, 300 billion
tokens in all. The shape is that of Radford et al. 2019, Table 2, without biases. What differs: the
tokenizer is trained on your own text, and GELU is the tanh approximation of the original GPT-2.
"""

from configs.schema import Batch, Checkpoints, Config, Data, Evaluation, Model, Optimizer, Schedule


def get_config() -> Config:
    """The recipe, see above."""
    return Config(
        model=Model(
            vocab=50_257,
            context=1024,
            layers=12,
            width=768,
            heads=12,
            bias=False,
            compute_dtype="bfloat16",
        ),
        data=Data(path="runs/web"),
        batch=Batch(size=480, microbatch=96),
        optimizer=Optimizer(learning_rate=6e-4, weight_decay=0.1),
        schedule=Schedule(kind="cosine", warmup=2000, final=0.1),
        evaluation=Evaluation(every=1000, windows=2400),
        checkpoints=Checkpoints(every=1000, keep_every=50_000),
        steps=600_000,
    )

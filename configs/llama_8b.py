"""The shape of Llama 3.1 8B, and its training as far as it is published.

    python -m data.build --sources="jsonl:FOLDER/*.jsonl.zst" --tokenizer=bpe:128256 --out=runs/web
    python -m train --config=configs/llama_8b.py --workdir=runs/llama_8b

1.3M H100 hours in its authors' account (Llama 3 model card). Source: Grattafiori et al. 2024
(arXiv:2407.21783), Table 3 for shape and peak learning rate; section 3.4.1 for batch, warm-up and
decay, given there for 405B. What differs: the batch is one size, the context stays at 8192 (their
later stages for long contexts rescale the rotary base), and the 15 trillion tokens are one stage.
"""

from configs.schema import Batch, Checkpoints, Config, Data, Evaluation, Model, Optimizer, Schedule


def get_config() -> Config:
    """The recipe, see above."""
    return Config(
        model=Model(
            vocab=128_256,
            context=8192,
            layers=32,
            width=4096,
            heads=32,
            kv_heads=8,
            ffn="swiglu",
            ffn_width=14_336,
            norm="rmsnorm",
            positions="rotary",
            rotary_base=500_000.0,
            bias=False,
            tied=False,
            scan=True,
            remat="full",
            compute_dtype="bfloat16",
        ),
        data=Data(path="runs/web", attend_across=False),
        batch=Batch(size=512),
        optimizer=Optimizer(learning_rate=3e-4, weight_decay=0.1),
        schedule=Schedule(kind="cosine", warmup=8000, final=0.01),
        evaluation=Evaluation(every=1000, windows=512),
        checkpoints=Checkpoints(every=1000, keep_every=50_000),
        steps=3_600_000,
    )

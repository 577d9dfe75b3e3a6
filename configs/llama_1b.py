"""The shape of Llama 3.2 1B, trained from scratch.

    python -m data.build --sources="jsonl:FOLDER/*.jsonl.zst" --tokenizer=bpe:128256 --out=runs/web
    python -m train --config=configs/llama_1b.py --workdir=runs/llama_1b

Twenty tokens a parameter (Hoffmann et al. 2022, arXiv:2203.15556), 6 N D = 1.9e20 floating-point
operations: most of a day on eight H100. Source of the shape: the model card of Llama 3.2. Its
authors pruned and distilled it from larger models; the training here is our own, the settings of
llama_8b.py with smaller batches.
"""

from configs.schema import Batch, Checkpoints, Config, Data, Evaluation, Model, Optimizer, Schedule


def get_config() -> Config:
    """The recipe, see above."""
    return Config(
        model=Model(
            vocab=128_256,
            context=8192,
            layers=16,
            width=2048,
            heads=32,
            kv_heads=8,
            ffn="swiglu",
            ffn_width=8192,
            norm="rmsnorm",
            positions="rotary",
            rotary_base=500_000.0,
            bias=False,
            scan=True,
            remat="full",
            compute_dtype="bfloat16",
        ),
        data=Data(path="runs/web", attend_across=False),
        batch=Batch(size=128, microbatch=32),
        optimizer=Optimizer(learning_rate=3e-4, weight_decay=0.1),
        schedule=Schedule(kind="cosine", warmup=1000, final=0.01),
        evaluation=Evaluation(every=500, windows=512),
        checkpoints=Checkpoints(every=500, keep_every=5000),
        steps=24_000,
    )

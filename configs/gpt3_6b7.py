"""GPT-3 6.7B, and what it shares with its larger sister.

    python -m data.build --sources="jsonl:FOLDER/*.jsonl.zst" --tokenizer=bpe:50257 --out=runs/web
    python -m train --config=configs/gpt3_6b7.py --workdir=runs/gpt3_6b7

139 petaflop/s-days. Source: Brown et al. 2020 (arXiv:2005.14165), Table 2.1 for shape, batch and
learning rate, Appendix B for the rest, Table D.1 for the cost. Every second layer attends within a
band, whose width the paper does not give. What differs: the cosine falls over all of the run, where
the paper's ends at 260 of the 300 billion tokens and stays at a tenth; the schedule counts updates
and not tokens; documents are not sampled by quality.
"""

import bisect
import itertools

from configs.schema import Batch, Checkpoints, Config, Data, Evaluation, Model, Optimizer, Schedule

CONTEXT = 2048


def get_config() -> Config:
    """The recipe, see above. The paper's 2M tokens a batch are 2^21."""
    return gpt3(
        layers=32,
        width=4096,
        heads=32,
        learning_rate=1.2e-4,
        batch=growing_batch(1024, ramp_tokens=8_000_000_000),
    )


def gpt3(*, layers: int, width: int, heads: int, learning_rate: float, batch: Batch) -> Config:
    """One size of the family: 300 billion tokens, the first 375 million of them to warm up."""
    return Config(
        model=Model(
            vocab=50_257,
            context=CONTEXT,
            layers=layers,
            width=width,
            heads=heads,
            windows=(0, 256),
            scan=True,
            remat="full",
            compute_dtype="bfloat16",
        ),
        data=Data(path="runs/web"),
        batch=batch,
        optimizer=Optimizer(learning_rate=learning_rate, weight_decay=0.1),
        schedule=Schedule(kind="cosine", warmup=steps_to(375_000_000, batch), final=0.1),
        evaluation=Evaluation(every=1000, windows=1024),
        checkpoints=Checkpoints(every=500, keep_every=10_000),
        steps=steps_to(300_000_000_000, batch),
    )


def growing_batch(size: int, ramp_tokens: int) -> Batch:
    """From 32k tokens to the full size over the first `ramp_tokens`, in doublings.

    The size grows in proportion to the tokens seen, so each doubling takes equally many updates.
    """
    sizes = [16 << k for k in range(size.bit_length()) if 16 << k < size] + [size]
    windows_per_size = ramp_tokens // CONTEXT / size
    updates = [round(windows_per_size * (b - a) / a) for a, b in itertools.pairwise(sizes)]
    return Batch(size=size, ramp=tuple(zip(itertools.accumulate(updates), sizes, strict=False)))


def steps_to(tokens: int, batch: Batch) -> int:
    """Updates until that many tokens are seen."""
    return bisect.bisect_left(range(tokens), tokens // CONTEXT, key=batch.windows_before)

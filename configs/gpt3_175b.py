"""GPT-3 175B.

    python -m data.build --sources="jsonl:FOLDER/*.jsonl.zst" --tokenizer=bpe:50257 --out=runs/web
    python -m train --config=configs/gpt3_175b.py --workdir=runs/gpt3_175b

3640 petaflop/s-days. Source and differences: as for gpt3_6b7.py. The paper's 3.2M tokens a batch
are 1562.5 windows; this is the nearest size that divides over a large mesh.
"""

from configs.gpt3_6b7 import gpt3, growing_batch
from configs.schema import Config


def get_config() -> Config:
    """The recipe, see above."""
    return gpt3(
        layers=96,
        width=12_288,
        heads=96,
        learning_rate=0.6e-4,
        batch=growing_batch(1536, ramp_tokens=12_000_000_000),
    )

"""Tiny Shakespeare by characters, its last tenth held out, as nanoGPT prepares it.

    python -m data.build --config=configs/corpora/shakespeare_char.py \\
        --sources=text:PATH/tinyshakespeare.txt --out=runs/shakespeare_char/data

The text, a million characters, is data/tinyshakespeare/input.txt in github.com/karpathy/char-rnn.
"""

from configs.corpus import Corpus, Source


def get_config() -> Corpus:
    """The recipe, see above."""
    return Corpus(
        sources=(Source(kind="text", pattern="tinyshakespeare.txt"),),
        tokenizer="chars",
        validation=0.1,
        split="tail",
    )

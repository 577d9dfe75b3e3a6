"""The quickstart's text: the Python standard library of the interpreter that runs it.

    python -m data.build --config=configs/corpora/quickstart.py --out=runs/quickstart/data

Some ten megabytes of well-kept code by many hands, on every machine that runs this, so nothing is
downloaded. Whole files are held out: a tail would hold out the ends of files only.
"""

from configs.corpus import Corpus, Source


def get_config() -> Corpus:
    """The recipe, see above."""
    return Corpus(
        sources=(Source(kind="stdlib"),),
        tokenizer="bpe:2048",
        validation=0.05,
        split="documents",
    )

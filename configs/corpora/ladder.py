"""The ladder's text: the Python standard library of the interpreter that runs it, by bytes.

    python -m data.build --config=configs/corpora/ladder.py --out=runs/ladder/data

Bytes, because the tables of a larger vocabulary would outweigh the blocks of the smallest models.
Whole files are held out, enough of them that the validation loss is known well.
"""

from configs.corpus import Corpus, Source


def get_config() -> Corpus:
    """The recipe, see above."""
    return Corpus(
        sources=(Source(kind="stdlib"),),
        tokenizer="bytes",
        validation=0.08,
        split="documents",
    )

"""A web crawl, cleaned as FineWeb was (Penedo et al. 2024, arXiv:2406.17557), and C4's page rules.

    python -m data.build --config=configs/corpora/web.py --sources=warc:crawl/*.warc.gz --out=DIR

Differs from FineWeb: no URL block list (give clean.deny_domains), near duplicates are looked for in
all that is built together, repeated lines are held to the paper's 0.1, and every rule sees the text
as it would be trained on. docs/corpus.md says what each step does and costs.
"""

from configs.corpus import C4, Clean, Corpus, Dedup, Pii, Source


def get_config() -> Corpus:
    """The recipe, see above."""
    return Corpus(
        sources=(Source(kind="warc", pattern="crawl/*.warc.gz"),),
        tokenizer="bpe:32768",
        clean=Clean(
            repair=True,
            languages=("en",),
            rules=("gopher_repetition", "gopher_quality", "c4", "fineweb"),
            c4_lines=True,
            c4=C4(terminal_punctuation=False),
            pii=Pii(action="replace"),
        ),
        dedup=Dedup(exact=True, fuzzy=True),
        validation=0.001,
        max_faults=10_000,
    )

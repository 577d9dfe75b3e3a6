"""The lines of a document that C4 keeps: Raffel et al. 2020, section 2.2, as in TFDS's c4_utils.

Where this differs from datatrove's C4QualityFilter, on purpose: a line that ends in an apostrophe
has no terminal punctuation, and the thresholds are those of the reference (datatrove's defaults are
three words a line and five sentences a page, which the reference has the other way round).
"""

import re

from configs.corpus import C4

DROPPED = ("long_word", "no_terminal_punctuation", "few_words", "javascript", "policy")

_CITATION = re.compile(r"\[\d*\]|\[edit\]|\[citation needed\]")
_POLICY = (
    "terms of use",
    "privacy policy",
    "cookie policy",
    "uses cookies",
    "use of cookies",
    "use cookies",
)


def c4_lines(text: str, c4: C4) -> tuple[str, dict[str, int]]:
    """The text without citations and without the lines that C4 drops, and how many why.

    Lines are those of str.splitlines, stripped of spaces at the ends. What drops a whole page is
    left for the rules to find: a line with "lorem ipsum" or a brace stays where the reference looks
    for that first.

    Returns:
        The text, and the lines dropped for each of the reasons DROPPED.
    """
    dropped = dict.fromkeys(DROPPED, 0)
    # The whole text is searched first, since few have any of these.
    lower = text.lower()
    phrases = any(phrase in lower for phrase in ("javascript", *_POLICY))
    kept = []
    for raw in text.splitlines():
        line = raw.strip()
        if len(line) > c4.max_word_characters and any(
            len(word) > c4.max_word_characters for word in line.split()
        ):
            dropped["long_word"] += 1
            continue
        if "[" in line:
            line = _CITATION.sub("", line)
        if c4.terminal_punctuation and (
            not line.endswith((".", "?", "!", '"')) or line.endswith("...")
        ):
            dropped["no_terminal_punctuation"] += 1
        # The rest of a line that is not split further counts as one word, as it has one.
        elif c4.min_line_words > 0 and (
            len(line.split(None, c4.min_line_words - 1)) < c4.min_line_words
        ):
            dropped["few_words"] += 1
        elif reason := _phrase(line) if phrases else "":
            dropped[reason] += 1
        else:
            kept.append(line)
    return "\n".join(kept).strip(), dropped


def _phrase(line: str) -> str:
    """Why a line with certain words is dropped; empty: it is not."""
    lower = line.lower()
    if "lorem ipsum" in lower:
        return ""
    if "javascript" in lower:
        return "javascript"
    return "policy" if "{" not in line and any(phrase in lower for phrase in _POLICY) else ""

"""Broken Unicode mended, one kind of newline, no characters that show nothing.

Mojibake, such as UTF-8 that was read as Windows-1252, is ftfy's to find and undo. Of its other
repairs those are off that replace one way of writing by another: curly quotes, ligatures and
full-width forms say how a text was set, and HTML entities may be what it is about.
"""

import re
import unicodedata
from collections.abc import Callable
from functools import cache

_ESCAPES = re.compile("\x1b\\[[0-?]*[ -/]*[@-~]")  # colours and the like, for terminals
# Form feeds end a line where nothing else does: text of books has them between pages.
_NEWLINES = re.compile("\r\n?|\n[\x0b\x0c]+|[\x0b\x0c]+\n?|\u2028|\u2029")
_CONTROLS = re.compile("[\x00-\x08\x0e-\x1f\x7f]")
# Zero-width space, word joiner and the operators after it, deprecated format characters, byte order
# mark, annotation marks. Marks of direction stay: right-to-left text is read by them.
_ZERO_WIDTH = re.compile("[\u200b\u2060-\u2064\u206a-\u206f\ufeff\ufff9-\ufffb]")
# Joiners are spelling in Persian, the Indic scripts and emoji, and noise elsewhere.
_JOINERS = re.compile(
    "(?<![\u0600-\u109f\u1780-\u18af\u1a20-\u1c4f\ua800-\uabff\ufb50-\ufdff\ufe70-\ufefc"
    "\u2190-\u2bff\ufe0f\U00010a00-\U00011fff\U0001f000-\U0001faff])[\u200c\u200d]+"
)
# These are traces by which ftfy knows mojibake, so they go after it: C1 controls and soft hyphen.
_TRACES = re.compile("[\x80-\x9f\xad]")
# One search tells whether a text needs any of the above.
_ODD = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u200b-\u200d\u2028\u2029"
    "\u2060-\u2064\u206a-\u206f\ufeff\ufff9-\ufffb]"
)
# All that ftfy looks for has one of these: two neighbours that the single-byte encodings know, a C1
# control, half a surrogate pair, or a letter that mojibake makes and that stands alone in it.
_LEGACY = "\x80-\u05ff\u2000-\u2bff\uf8ff\ufb01\ufb02"
_ALONE = "\x80-\x9f\xc2\xc3\u0152\u0153\ud800-\udfff"
_DOUBTFUL = re.compile(f"[{_LEGACY}\ud800-\udfff](?:(?<=[{_ALONE}])|[{_LEGACY}])")


def repair(text: str) -> str:
    r"""The text with mojibake undone, in NFC, with \n for every kind of newline.

    Control characters but \n and \t, and characters without width or meaning, are removed, as are
    terminals' escape sequences; half a surrogate pair becomes U+FFFD, so that the result can always
    be encoded.
    """
    if text.isascii():
        return _plain(text) if _ODD.search(text) else text
    if _ODD.search(text):
        text = _ZERO_WIDTH.sub("", _plain(text))
    if _DOUBTFUL.search(text):
        fix = _fixer()
        # Line by line, as ftfy itself does: one line's encoding says nothing about the next.
        lines = text.split("\n")
        text = "\n".join([fix(line) if _DOUBTFUL.search(line) else line for line in lines])
    if _ODD.search(text):
        text = _JOINERS.sub("", _ZERO_WIDTH.sub("", _TRACES.sub("", _plain(text))))
    return unicodedata.normalize("NFC", text)


def _plain(text: str) -> str:
    """One kind of newline, and no ASCII controls."""
    if "\x1b" in text:
        text = _ESCAPES.sub("", text)
    return _CONTROLS.sub("", _NEWLINES.sub("\n", text))


@cache
def _fixer() -> Callable[[str], str]:
    import ftfy

    config = ftfy.TextFixerConfig(
        unescape_html=False,
        remove_terminal_escapes=False,  # this and the next but one are ours, for ASCII text too
        fix_latin_ligatures=False,
        fix_line_breaks=False,
        fix_character_width=False,
        uncurl_quotes=False,
        remove_control_chars=False,
        explain=False,
    )
    return lambda line: ftfy.fix_text(line, config)

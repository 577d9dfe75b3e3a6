"""Wiki markup to plain text, in passes that each take time linear in the length of the article.

Links, templates and tables nest, so they are matched in one pass with a stack, innermost first.
What a template shows only the wiki itself knows: those that stand for words in a sentence are kept
(see `data.sources.wikitemplates`), the others go, with tables, references, files and categories.
Headings stay as lines, but not over nothing.
"""

import html
import re
from collections.abc import Callable, Iterator

from data.sources.wikitemplates import shown

_MARK = "\ue000"  # private use: stands for what must be left as it is
# What ends without having begun, or the other way round, must not swallow an article: of elements,
# content is only what holds no further opening of the same one.
_DROPPED = (
    "ref|references|gallery|timeline|imagemap|score|graph|mapframe|maplink|templatestyles"
    "|templatedata|inputbox|hiero|style|table|includeonly|indicator|categorytree"
)
_LITERAL = "nowiki|pre|source|syntaxhighlight"
_FORMULA = "math|chem|ce"
_TAGS = (
    "abbr|b|bdi|bdo|big|blockquote|br|caption|center|cite|code|dd|del|dfn|div|dl|dt|em|font"
    "|gallery|h1|h2|h3|h4|h5|h6|hr|i|includeonly|ins|kbd|li|mark|math|nobr|noinclude|nowiki"
    "|ol|onlyinclude|p|poem|q|rb|ref|references|rp|rt|ruby|s|samp|section|small|span|strike"
    "|strong|sub|sup|table|tbody|td|th|thead|tr|tt|u|ul|var|wbr|poem|pre|chem|ce|source"
    "|syntaxhighlight|dropcap"
)


def _elements(called: str) -> re.Pattern[str]:
    return re.compile(
        rf"<({called})\b(?:[^<>]*/>|[^<>]*>([^<]*+(?:<(?!/?\1\b)[^<]*+)*+)</\1\s*>)", re.I
    )


_COMMENT = re.compile(r"<!--.*?(?:-->|\Z)", re.S)
_RAW = _elements(f"{_LITERAL}|{_FORMULA}")
_GONE = _elements(_DROPPED)
_TOKEN = re.compile(r"(\{\{|\{\||\}\}|\|\}(?!\})|\[\[|\]\])")
_BREAK = re.compile(r"<(?:br|hr|/?p|/?li|/?div|/tr|/?blockquote|/?center)\b[^<>]*>", re.I)
_TAG = re.compile(rf"</?(?:{_TAGS})\b[^<>]*>", re.I)
_EXTERNAL = re.compile(
    r"\[(?:(?:https?|ftp|irc|news):|//|mailto:)[^\s\[\]<>]*+[ \t]*+([^\[\]\n]*+)\]"
)
_QUOTES = re.compile(r"'{2,}")
_SWITCH = re.compile(r"__[A-Z]{3,}__")
_HEADING = re.compile(r"^(={1,6})[ \t]*(.+?)[ \t]*\1[ \t]*$")
_HOLLOW = re.compile(r"\([ ,;:\u2013-]*\)")  # what a dropped template leaves
_LEADING = re.compile(r"\([ ]*[,;][ ,;]*")
_WORD = re.compile(rf"\w|{_MARK}")
_KEPT = re.compile(rf"{_MARK}(\d+){_MARK}")
_INTERWIKI = re.compile(r"(?:[a-z]{2,3}|simple|[a-z]{2,3}-[a-z-]{2,})\Z")
_FILES = frozenset({"file", "image", "media"})
_CATEGORIES = frozenset({"category"})
_DEEP = 100  # no deeper nesting: it could cost time quadratic in its depth
_OPENING = ("{{", "[[", "{|")
_ABANDON = 8  # frames that one closing token may leave unclosed, lest a stray one undo an article


def plain(markup: str, gone: frozenset[str] = frozenset()) -> str:
    """The text that a reader sees.

    `gone` are the wiki's own names for the namespaces of files and categories, in lower case,
    beside the English ones.
    """
    kept: list[str] = []

    def keep(match: re.Match[str]) -> str:
        content = match[2] or ""
        if match[1].lower() in _FORMULA.split("|"):
            content = f"${' '.join(content.split())}$".replace("{{", "{ {").replace("}}", "} }")
        kept.append(content if content != "$$" else "")
        return f"{_MARK}{len(kept) - 1}{_MARK}"

    text = _COMMENT.sub("", markup.replace(_MARK, "")) if "<!--" in markup else markup
    text = _RAW.sub(keep, text.replace(_MARK, ""))
    text = _GONE.sub("", text)
    if "<table" in text:  # which held another
        text = _GONE.sub("", text)
    text = _nested(text, _FILES | _CATEGORIES | gone)
    text = _EXTERNAL.sub(r"\1", text)
    text = _BREAK.sub("\n", text)
    text = _TAG.sub("", text)
    text = _QUOTES.sub(lambda match: "'" if len(match[0]) == 4 else "", text)
    text = html.unescape(_SWITCH.sub("", text))
    text = _LEADING.sub("(", _HOLLOW.sub("", text.replace("\u00a0", " ").replace("\t", " ")))
    while "  " in text:
        text = text.replace("  ", " ")
    for mark in ",.;:":
        text = text.replace(f" {mark} ", f"{mark} ").replace(f" {mark}\n", f"{mark}\n")
    for gap, closed in (("( ", "("), (", )", ")"), ("; )", ")"), (" )", ")")):
        text = text.replace(gap, closed)
    text = "\n".join(_lines(text))
    if kept:
        text = _KEPT.sub(lambda match: html.unescape(kept[int(match[1])]), text)
    return text.strip()


def _nested(text: str, gone: frozenset[str]) -> str:
    """Without templates and tables, and with links as their labels."""
    closers: dict[str, tuple[str, Callable[[str], str]]] = {
        "}}": ("{{", shown),
        "]]": ("[[", lambda content: _link(content, gone)),
        "|}": ("{|", lambda content: ""),
    }
    frames: list[tuple[str, list[str]]] = [("", [])]  # what opened it, and the text in it so far
    parts = _TOKEN.split(text)  # texts and tokens in turn
    for i, part in enumerate(parts):
        if not i % 2:
            frames[-1][1].append(part)
        elif len(frames) > _DEEP and part in _OPENING:
            continue
        elif part in ("{{", "[[") or (part == "{|" and _begins_line(parts, i)):
            frames.append((part, []))
        elif part not in closers or (part == "|}" and not _begins_line(parts, i)):
            frames[-1][1].append(part)
        else:
            _close(frames, part, *closers[part])
    while len(frames) > 1:
        _fold(frames)
    return "".join(frames[0][1]).replace("[[", "").replace("]]", "").replace("}}", "")


def _begins_line(parts: list[str], i: int) -> bool:
    """Whether nothing but indentation stands before a token in its line, as tables require."""
    before = parts[i - 1].rstrip(" \t:*#")
    return before.endswith("\n") or (i == 1 and not before)


def _close(
    frames: list[tuple[str, list[str]]], token: str, opener: str, show: Callable[[str], str]
) -> None:
    """End the innermost frame that a closing token can end, and put what it shows outside."""
    inner = range(len(frames) - 1, max(0, len(frames) - 1 - _ABANDON), -1)
    depth = next((i for i in inner if frames[i][0] == opener), 0)
    if not depth:
        frames[-1][1].append("" if token == "|}" else token)
        return
    while len(frames) - 1 > depth:
        _fold(frames)
    content = "".join(frames.pop()[1])
    frames[-1][1].append(show(content))


def _fold(frames: list[tuple[str, list[str]]]) -> None:
    """Give what was opened and never closed to what surrounds it.

    Of a template or table, which would be parameters and cells, only what a blank line parts.
    """
    opener, parts = frames.pop()
    content = "".join(parts)
    if opener != "[[":
        content = "\n\n" + content.partition("\n\n")[2]
    frames[-1][1].append(content)


def _link(content: str, gone: frozenset[str]) -> str:
    """What a link shows: its label, or where it leads; nothing for files and categories."""
    target, bar, label = content.partition("|")
    if "\n" in target:
        return content  # brackets that were never closed, and stray ones later
    space, colon, _ = target.partition(":")
    if colon and space:
        called = space.strip().lower().replace("_", " ")
        if called in gone or (not bar and _INTERWIKI.match(space.strip())):
            return ""
    if bar:
        return label or target.partition("(")[0].strip()
    return target.lstrip(": ").replace("_", " ")


def _lines(text: str) -> Iterator[str]:
    """Lines without list markup; a heading only where text follows in its section."""
    pending: list[tuple[int, str]] = []  # headings over which nothing stood yet
    blank = True
    for line in text.split("\n"):
        line = line.strip()
        if line.startswith("=") and (heading := _HEADING.match(line)):
            level = len(heading[1])
            pending = [above for above in pending if above[0] < level]
            pending.append((level, heading[2]))
            continue
        if line.startswith(("*", "#", ":", ";")):
            inner = line.lstrip("*#:; ")
            line = f"- {inner}" if line[:1] in "*#" else inner
        elif line.startswith(("|", "!")):
            continue  # of a table that was not well formed
        if line and not _WORD.search(line):
            continue
        if line:
            for _, title in pending:
                yield title + "\n" if blank else f"\n{title}\n"
                blank = True
            pending = []
        if line or not blank:
            yield line
        blank = not line

"""Templates of Wikipedia that stand for words in a sentence, and what they show.

Only those that are frequent in running text, by their English names; all others show nothing.
What is shown may hold character references, as markup does.
"""

import re

_FIRST_ARGUMENT = frozenset(
    [
        "abbr",
        "angbr",
        "as written",
        "bigmath",
        "block quote",
        "blockquote",
        "bquote",
        "centered text",
        "cite quote",
        "cquote",
        "em",
        "formatnum",
        "gaps",
        "ill",
        "interlanguage link",
        "ipa",
        "ipa-all",
        "ipa-en",
        "key press",
        "keypress",
        "larger",
        "lc",
        "linktext",
        "math",
        "mvar",
        "no italic",
        "nobold",
        "nobr",
        "noitalic",
        "not a typo",
        "nowrap",
        "poem quote",
        "poemquote",
        "polytonic",
        "proper name",
        "quotation",
        "quote",
        "sc",
        "script",
        "sic",
        "small",
        "small-caps",
        "smallcaps",
        "smaller",
        "big",
        "strong",
        "sub",
        "sup",
        "typo",
        "uc",
        "ucfirst",
        "unicode",
        "vanchor",
        "var",
        "visible anchor",
    ]
)
_LAST_ARGUMENT = frozenset(
    [
        "background",
        "bg",
        "color",
        "colour",
        "font",
        "font color",
        "lang",
        "native name",
        "resize",
        "script/arabic",
        "script/hebrew",
        "tooltip",
        "translit",
        "transl",
        "transliteration",
    ]
)
_SYMBOLS = {
    "ndash": "&ndash;",
    "mdash": "&mdash;",
    "en dash": "&ndash;",
    "em dash": "&mdash;",
    "emdash": "&mdash;",
    "endash": "&ndash;",
    "snd": " &ndash; ",
    "spnd": " &ndash; ",
    "spaced ndash": " &ndash; ",
    "spaced en dash": " &ndash; ",
    "spaced mdash": " &mdash; ",
    "dash": "&ndash;",
    "nbsp": " ",
    "space": " ",
    "shy": "",
    "!": "|",
    "=": "=",
    "'": "'",
    "·": " · ",
    "•": " • ",
    "dot": " · ",
    "bullet": " • ",
    "okina": "&#699;",
    "ayin": "&#703;",
    "hamza": "&#702;",
    "pi": "π",
    "minus": "&minus;",
    "times": "&times;",
    "degree": "°",
    "deg": "°",
    "increase": "",
    "e": "&times;10",
    "sqrt": "√",
    "ldots": "…",
    "...": "…",
}
_RANGES = {
    "to": " to ",
    "-": "&ndash;",
    "\u2013": "&ndash;",
    "and": " and ",
    "by": " by ",
    "x": " &times; ",
    "or": " or ",
}
_CONVERTED = frozenset({"convert", "cvt", "conv"})
_CIRCA = frozenset({"circa", "c.", "ca", "ca."})
_FRACTIONS = frozenset({"frac", "fraction", "sfrac", "fr"})
_NAMED = re.compile(r"\s*[A-Za-z][\w -]*\s*=(?!=)")
_MONTHS = "January February March April May June July August September October November December"


def shown(content: str) -> str:
    """What a template shows, given what stands between its braces; mostly nothing."""
    called, _, rest = content.partition("|")
    called = called.strip().lower().replace("_", " ")
    if called in _SYMBOLS and not (called == "e" and not rest):
        return _SYMBOLS[called] + (rest if called in ("e", "sqrt") else "")
    if not rest:
        head, colon, value = called.partition(":")
        return content.partition(":")[2] if colon and head in _FIRST_ARGUMENT and value else ""
    if called in _FIRST_ARGUMENT or (called.startswith("lang-") and "=" not in called):
        return _arguments(rest, 1)[0].strip()
    if called in _LAST_ARGUMENT:
        return _arguments(rest)[-1].strip()
    if called in _CONVERTED:
        return _converted(_arguments(rest))
    if called in _CIRCA:
        return "c. " + "&ndash;".join(
            part.strip() for part in _arguments(rest, 2)[:2] if part.strip()
        )
    if called in _FRACTIONS:
        parts = [part.strip() for part in _arguments(rest)]
        return "/".join(parts[-2:]) if len(parts) < 3 else f"{parts[0]} {parts[1]}/{parts[2]}"
    if called == "as of":
        return f"As of {_day(_arguments(rest))}"
    if called in ("val", "num"):
        return _value(rest)
    if called in ("chem", "chem2"):
        return "".join(part.strip() for part in _arguments(rest))
    if called in ("ipac-en", "respell", "pronunciation"):
        joined = "".join if called == "ipac-en" else "-".join
        text = joined(part.strip() for part in _arguments(rest))
        return f"/{text}/" if called == "ipac-en" and text else text
    if called in ("ss", "ms", "mv", "rms", "hms", "uss", "hmas", "usns", "hmcs"):
        return f"{called.upper()} {_arguments(rest)[0].strip()}"
    return ""


def _arguments(rest: str, most: int = 0) -> list[str]:
    """Arguments without a name; of `1=x`, x. At least one. `most`: so many are enough."""
    found: list[str] = []
    for part in rest.split("|"):
        if part.lstrip().startswith(("1=", "2=")):
            found.append(part.partition("=")[2])
        elif not _NAMED.match(part):
            found.append(part)
        if most and len(found) == most:
            break
    return found or [""]


def _converted(arguments: list[str]) -> str:
    """A quantity as it was given: the number or range of numbers, and the first unit."""
    parts = [part.strip() for part in arguments]
    text, i = parts[0], 1
    while i + 1 < len(parts) and parts[i] in _RANGES:
        text += _RANGES[parts[i]] + parts[i + 1]
        i += 2
    return f"{text} {parts[i]}" if i < len(parts) else text


def _day(arguments: list[str]) -> str:
    """Year, month and day, as in 3 May 2015."""
    parts = [part.strip() for part in arguments if part.strip()][:3]
    if len(parts) > 1 and parts[1].isdecimal() and 0 < int(parts[1]) <= 12:
        parts[1] = _MONTHS.split()[int(parts[1]) - 1]
    return " ".join(reversed(parts))


def _value(rest: str) -> str:
    """A number with its unit, as in 5.3 km."""
    number = _arguments(rest)[0].strip()
    unit = re.search(r"\bul?=([^|]*)", rest)
    return f"{number} {unit[1].strip()}" if unit else number

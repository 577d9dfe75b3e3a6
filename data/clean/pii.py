"""E-mail addresses, phone numbers and IP addresses, replaced by ones that belong to nobody.

The replacements are set aside for examples (example.com: RFC 2606; 192.0.2.0/24: RFC 5737;
2001:db8::/32: RFC 3849; 555-01xx: the North American Numbering Plan), so that a model learns how
such things look and never sees whose they were. What is so set aside does not count as a hit: in
what has been replaced nothing is found. What is spelled to hide ("name at host dot com") stays.

Names, postal addresses and national identity numbers are not looked for.
"""

import ipaddress
import re
from collections.abc import Callable, Iterator
from functools import lru_cache

KINDS = ("email", "phone", "ip")

_EMAIL = "email@example.com"
_PHONE = "+1-202-555-0100"
_IP = {4: "192.0.2.1", 6: "2001:db8::1"}

_Hit = tuple[int, int, str]  # start, end, what takes its place

_LOCAL = re.compile(r"[A-Za-z0-9_+-][A-Za-z0-9._%+'-]{0,63}")  # backwards, from the @
_LETTER = "A-Za-z0-9\u00c0-\u024f"
_DOMAIN = re.compile(
    rf"(?:[{_LETTER}](?:[{_LETTER}-]{{0,61}}[{_LETTER}])?\.){{1,8}}[A-Za-z]{{2,24}}"
    r"(?![A-Za-z0-9_]|-[A-Za-z0-9])"
)
_RESERVED_DOMAIN = re.compile(
    r"(?:^|.*\.)(?:example(?:\.(?:com|net|org))?|test|invalid|localhost)", re.I
)
_FILE = re.compile(r".*\.(?:png|jpe?g|gif|svg|webp|ico|js|mjs|css|html?|json)", re.I)
_SERVICES = ("git", "hg", "svn")  # git@host:path is where a repository is

# Words before a number that say what it is.
_NO_ADDRESS = frozenset(
    [
        "version", "versions", "ver", "v", "release", "released", "releases", "build",
        "firmware", "driver", "kernel", "rev", "revision", "section", "sections", "sec", "sect",
        "chapter", "chapters", "figure", "fig", "table", "clause", "article", "paragraph",
        "appendix", "item", "step", "rule", "oid",
    ]
)  # fmt: skip
_NO_PHONE = frozenset(
    [
        "isbn", "issn", "doi", "arxiv", "pmid", "pmc", "oclc", "lccn", "asin", "ean", "upc",
        "gtin", "sku", "iban", "patent", "serial", "part", "model", "order", "invoice",
        "account", "acct", "tracking", "case", "ticket", "version", "id",
    ]
)  # fmt: skip
_SAYS_PHONE = frozenset(
    [
        "phone", "phones", "telephone", "tel", "tél", "telefon", "telefono", "teléfono",
        "telefone", "telefoon", "telefax", "fax", "mobile", "mobil", "mob", "cell", "call",
        "dial", "whatsapp", "sms", "handy", "hotline", "ph", "тел", "телефон", "전화",
    ]
)  # fmt: skip
_SAYS_PHONE_LAST = ("電話", "电话", "電話番号")  # of scripts that put no space before them
_WINDOW = 32  # characters before a number in which such a word is looked for
# No digit and no @ may lie between, read backwards: so no other replacement can come to lie there
# and move the word out of reach.
_BETWEEN = re.compile(r"[^0-9@\n]*(?:[03]1-(?=nbsi|NBSI)[^0-9@\n]*)?")
_LETTERS = re.compile(r"[^\W\d_]+")

_DIGITS = re.compile("[0-9]")
_IPV4 = re.compile(r"[0-9]{1,3}(?:\.[0-9]{1,3}){3}")
_IPV6 = re.compile(r"[23][0-9A-Fa-f]{3}:[0-9A-Fa-f:]{2,34}")
# Part of a longer number, of name-1.2.3.4, name/1.2.3.4, name==1.2.3.4, or of an IPv6 address.
_IN_NAME = re.compile(r"(?:[\w.^~]|[=<>~!]=|[A-Za-z][-/_+]|:[0-9A-Fa-f]{0,4}:)\Z")
_GOES_ON = re.compile(r"\w|-[A-Za-z]|\.\w")
_LEAST_OCTET = 32  # one octet of an address is not below

_FICTION = re.compile("1?[2-9][0-9]{2}55501[0-9]{2}")
_RUN = re.compile(r"[+(0-9][0-9 ().\-/\u00a0]{6,}[0-9]")
_AFTER = r"(?![\w%])(?![-.,/:][0-9])"
_BEFORE = r"(?<![\w.,$€£¥#=/+\-])"
_THREE, _SEVEN = r"[2-9][0-9]{2}", r"[2-9][0-9]{2}[-. ][0-9]{4}"
_AMERICAN = re.compile(
    rf"(?<![\w.+])\+1[-. ]?(?:\({_THREE}\)|{_THREE})[-. ]?{_THREE}[-. ]?[0-9]{{4}}{_AFTER}|"
    rf"{_BEFORE}(?:1[-. ])?(?:\({_THREE}\)[ -]?|{_THREE}[-.]){_SEVEN}{_AFTER}"
)
_DIGIT = r"[ .\-/()\u00a0]{0,3}[0-9]"  # a digit, and what may stand between it and the last
_INTERNATIONAL = re.compile(rf"(?<![\w.+])\+[2-9](?:{_DIGIT}){{7,14}}{_AFTER}")
_FRENCH = re.compile(rf"{_BEFORE}0[1-9]([ .-])[0-9]{{2}}(?:\1[0-9]{{2}}){{3}}{_AFTER}")
_FORMS = ((_AMERICAN, "-.(+"), (_INTERNATIONAL, "+"), (_FRENCH, "0"))  # with what none is without
_ANY = re.compile(rf"(?<![\w$€£¥+])\(?[0-9](?:{_DIGIT}){{8,13}}{_AFTER}")


def replace(text: str) -> tuple[str, dict[str, int]]:
    """The text with hits replaced, and how many there were of each of KINDS.

    The same text gives the same result, and the result gives itself and no hits.
    """
    counts = dict.fromkeys(KINDS, 0)
    for kind, find in _FINDERS.items():
        hits = list(find(text))
        counts[kind] = len(hits)
        if hits:
            text = _splice(text, hits)
    return text, counts


def count(text: str) -> dict[str, int]:
    """How many hits there are of each of KINDS."""
    return replace(text)[1]


def _splice(text: str, hits: list[_Hit]) -> str:
    parts = []
    done = 0
    for start, end, replacement in hits:
        parts += [text[done:start], replacement]
        done = end
    return "".join([*parts, text[done:]])


def _emails(text: str) -> Iterator[_Hit]:
    """Addresses around each @."""
    done = 0
    at = text.find("@")
    while at >= 0:
        local = _LOCAL.match(text[max(done, at - 64) : at][::-1])
        start = at - len(local.group().rstrip(".%+'-")) if local else at
        domain = _DOMAIN.match(text, at + 1) if start < at else None
        if domain and _is_email(text, start, at, domain):
            yield start, domain.end(), _EMAIL
            done = domain.end()
        at = text.find("@", at + 1)


def _is_email(text: str, start: int, at: int, domain: re.Match[str]) -> bool:
    before, after = text[max(0, start - 1) : start], text[domain.end() : domain.end() + 1]
    if before == "@" or (text[start:at] in _SERVICES and after in (":", "/")):
        return False  # @name@host names an account elsewhere
    if before == ":" and "://" in text[max(0, start - 80) : start].split()[-1]:
        return False  # https://name:secret@host
    name = domain.group()
    return not (_RESERVED_DOMAIN.fullmatch(name) or _FILE.fullmatch(name))


def _addresses(text: str) -> Iterator[_Hit]:
    """IP addresses that are routed publicly."""
    hits = []
    if text.count(".") >= 3 and _DIGITS.search(text):
        hits += [(*found.span(), _IP[4]) for found in _IPV4.finditer(text) if _is_ipv4(text, found)]
    if text.count(":") >= 2:
        for found in _IPV6.finditer(text):
            end = found.end() - (found.group().endswith(":") and not found.group().endswith("::"))
            if _is_ipv6(text, found.start(), end):
                hits.append((found.start(), end, _IP[6]))
    return iter(sorted(hits))


def _is_ipv4(text: str, found: re.Match[str]) -> bool:
    start, end = found.span()
    if _IN_NAME.search(text, max(0, start - 6), start) or _GOES_ON.match(text, end, end + 2):
        return False
    # Versions and section numbers are of small numbers; of addresses one in 4096 is.
    if all(int(octet) < _LEAST_OCTET for octet in found.group().split(".")):
        return False
    words = _before(text, start, 6)
    numbered = (words and words[-1] in _NO_ADDRESS) or "§" in text[max(0, start - 3) : start]
    return not numbered and _is_public(found.group())


def _is_ipv6(text: str, start: int, end: int) -> bool:
    alone = not re.search(r"[\w:.]\Z", text[max(0, start - 1) : start])
    return alone and not re.match(r"\w|:\w", text[end : end + 2]) and _is_public(text[start:end])


@lru_cache(2**14)  # a log names the same addresses again and again
def _is_public(address: str) -> bool:
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return False
    return found.is_global and not found.is_multicast


def _phones(text: str) -> Iterator[_Hit]:
    """Phone numbers: with a country code, in American or French form, or after a word for phone."""
    if not _DIGITS.search(text):
        return
    for run in _RUN.finditer(text):
        start, end = run.start(), run.end() + 2  # with what must not follow
        found: list[re.Match[str]] = []
        characters = set(run.group())
        for form, needs in _FORMS:
            if not characters.isdisjoint(needs):
                found += form.finditer(text, start, end)
        any_form = _ANY.match(text, start, end)
        if any_form and _says_phone(_before(text, start, 12)):
            found.append(any_form)
        done = start
        for hit in sorted(found, key=lambda hit: hit.start()):
            if hit.start() >= done:
                done = hit.end()
                if _is_phone(text, hit):
                    yield hit.start(), done, _PHONE


def _is_phone(text: str, found: re.Match[str]) -> bool:
    digits = re.sub("[^0-9]", "", found.group())
    if _FICTION.fullmatch(digits) or digits.endswith("000000"):  # +25 000 000 is an amount
        return False
    return _NO_PHONE.isdisjoint(_before(text, found.start(), 10))


def _says_phone(words: list[str]) -> bool:
    return not _SAYS_PHONE.isdisjoint(words) or any(w.endswith(_SAYS_PHONE_LAST) for w in words)


def _before(text: str, start: int, reach: int) -> list[str]:
    """Words, in lower case, that end within `reach` characters before a number at `start`."""
    backwards = text[max(0, start - _WINDOW) : start][::-1]
    between = _BETWEEN.match(backwards)
    tail = between.group()[::-1] if between else ""
    return [w.group().lower() for w in _LETTERS.finditer(tail) if len(tail) - w.end() <= reach]


_FINDERS: dict[str, Callable[[str], Iterator[_Hit]]] = {
    "email": _emails,
    "ip": _addresses,
    "phone": _phones,
}

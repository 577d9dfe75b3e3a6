"""Which documents may be used at all: by licence, and by where they come from."""

import re
from collections.abc import Sequence
from fnmatch import translate
from urllib.parse import urlsplit

import numpy as np

from configs.corpus import Clean

RULES = ("allow_licences", "deny_licences", "allow_domains", "deny_domains")

_SCHEME = re.compile(r"(?:[a-z][a-z0-9+.-]*:)?//", re.IGNORECASE)
# A dotted name or an address; a title, which some sources have in place of a URL, is neither.
_HOST = re.compile(r"[\w-]+(?:\.[\w-]+)+|[0-9a-f.]*(?::[0-9a-f.]*){2,}|localhost")


def keep(
    licences: Sequence[str], domains_or_urls: Sequence[str], clean: Clean
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Which rule drops each document.

    Returns indices into RULES, int8 [documents], -1 for a document that is kept, and RULES; of
    several rules that drop a document the first is named. Globs match whole names of licences,
    whatever their case. An unknown licence or domain, "", is allowed only where the list of those
    allowed is empty. A domain in a list stands for all below it.
    """
    failed = np.full(len(licences), -1, np.int8)
    names = [licence.strip().lower() for licence in licences]
    if clean.deny_domains:
        failed[_among(domains_or_urls, clean.deny_domains)] = 3
    if clean.allow_domains:
        failed[~_among(domains_or_urls, clean.allow_domains)] = 2
    if clean.deny_licences:
        deny = _globs(clean.deny_licences)
        failed[[bool(name and deny.fullmatch(name)) for name in names]] = 1
    if clean.allow_licences:
        allow = _globs(clean.allow_licences)
        failed[[not (name and allow.fullmatch(name)) for name in names]] = 0
    return failed, RULES


def domain(url: str) -> str:
    """The host that a URL or a bare domain names; "" where it names none.

    In lower case, in ASCII (xn--), without www. and port.
    """
    url = url.strip()
    try:
        host = urlsplit(url if _SCHEME.match(url) else f"//{url}").hostname or ""
        host = host.rstrip(".").removeprefix("www.")
        host = host if host.isascii() else host.encode("idna").decode()
    except ValueError:  # half a bracket, an empty label
        return ""
    return host if _HOST.fullmatch(host) else ""


def _among(places: Sequence[str], listed: Sequence[str]) -> np.ndarray:
    """Which places lie in one of the domains listed, bool [places]."""
    domains = {domain(name) for name in listed} - {""}
    return np.array([not domains.isdisjoint(_above(domain(place))) for place in places], bool)


def _above(host: str) -> list[str]:
    """The host and the domains it is in."""
    parts = host.split(".")
    return [".".join(parts[i:]) for i in range(len(parts))]


def _globs(globs: Sequence[str]) -> re.Pattern[str]:
    return re.compile("|".join(translate(glob.strip().lower()) for glob in globs))

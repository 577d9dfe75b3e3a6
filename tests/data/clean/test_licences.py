"""Licences and domains are judged as the lists say."""

import pytest

from configs.corpus import Clean
from data.clean import licences

NAMES = ["CC-BY-SA-4.0", "cc0-1.0", "", "MIT", "cc-by-nc-4.0", "Public Domain", " apache-2.0 "]


def verdicts(names, places, **settings):
    found, rules = licences.keep(names, places, Clean(**settings))
    return [rules[i] if i >= 0 else "" for i in found]


def dropped(names, **settings):
    found = verdicts(names, [""] * len(names), **settings)
    return [name for name, rule in zip(names, found, strict=True) if rule]


def test_without_lists_all_are_kept():
    assert dropped(NAMES) == []
    assert verdicts([], []) == []


def test_globs_match_whole_names_in_any_case():
    assert dropped(NAMES, deny_licences=("cc-by-*",)) == ["CC-BY-SA-4.0", "cc-by-nc-4.0"]
    assert dropped(NAMES, deny_licences=("*-NC-*", "mit")) == ["MIT", "cc-by-nc-4.0"]
    assert dropped(NAMES, deny_licences=("cc", "by")) == []
    assert dropped(NAMES, deny_licences=("apache-[12].?",)) == [" apache-2.0 "]


def test_an_unknown_licence_passes_only_where_none_is_asked_for():
    assert dropped(NAMES, allow_licences=("*",)) == [""]
    assert dropped(NAMES, allow_licences=("cc*", "mit")) == ["", "Public Domain", " apache-2.0 "]
    assert dropped(NAMES, deny_licences=("*",)) == [name for name in NAMES if name]


def test_a_denied_licence_is_denied_though_allowed():
    found = verdicts(
        ["cc-by-nc-4.0", "cc-by-4.0", "mit"],
        ["", "bad.org", "bad.org"],
        allow_licences=("cc*",),
        deny_licences=("*nc*",),
        deny_domains=("bad.org",),
    )
    assert found == ["deny_licences", "deny_domains", "allow_licences"]


@pytest.mark.parametrize(
    ("place", "denied"),
    [
        ("https://bad.org/page", True),
        ("http://www.BAD.org:8080/", True),
        ("https://news.deep.bad.org/?q=1#x", True),
        ("bad.org", True),
        ("bad.org/a//b", True),
        ("//bad.org/", True),
        ("https://user:word@bad.org/", True),
        ("https://bad.org.", True),
        ("https://bücher.de/", True),
        ("https://xn--bcher-kva.de/", True),
        ("https://notbad.org/", False),
        ("https://bad.org.uk/", False),
        ("https://good.org/bad.org", False),
        ("https://good.org/?to=https://bad.org/", False),
        ("org", False),
        ("http://[::1", False),
        ("", False),
    ],
)
def test_domains_with_those_below_them(place, denied):
    listed = ("bad.org", "https://www.bücher.de/", "")
    assert verdicts([""], [place], deny_domains=listed) == (["deny_domains"] if denied else [""])


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://www.Example.org:443/a?b#c", "example.org"),
        ("example.org", "example.org"),
        ("http://93.184.216.34/x", "93.184.216.34"),
        ("http://[2001:db8::1]:80/", "2001:db8::1"),
        ("http://localhost:8000", "localhost"),
        ("http://[broken", ""),
        ("http://a..b/", ""),
        ("ü..b", ""),
        ("Anarchism", ""),
        ("A title: of three words", ""),
        ("", ""),
        ("  \n", ""),
    ],
)
def test_the_domain_of_a_url(url, expected):
    assert licences.domain(url) == expected


@pytest.mark.parametrize(
    ("place", "kept"),
    [
        ("http://en.good.org/a", True),
        ("good.org", True),
        ("http://notgood.org/", False),
        ("http://good.org.evil.com/", False),
        ("", False),
        ("a title", False),
    ],
)
def test_only_allowed_domains_and_those_below_them_stay(place, kept):
    found = verdicts([""], [place], allow_domains=("good.org",))
    assert found == ([""] if kept else ["allow_domains"])


def test_a_domain_may_be_allowed_but_for_a_part_of_it():
    places = ["http://a.good.org/", "http://bad.good.org/", "http://else.com/"]
    lists = {"allow_domains": ("good.org",), "deny_domains": ("bad.good.org",)}
    assert verdicts([""] * 3, places, **lists) == ["", "deny_domains", "allow_domains"]

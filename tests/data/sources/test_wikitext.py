"""Markup, by construct; and in linear time whatever is left open."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.sources.wikitext import plain

CASES = {
    "'''Bold''' and ''italic'', l'''''un'''''": "Bold and italic, lun",
    "[[Page]], [[Page|label]], [[page]]s, [[a (b)|]], [[:Category:X]]": (
        "Page, label, pages, a, Category:X"
    ),
    "a [[File:x.jpg|thumb|A [[link]] and {{t}}]]b": "a b",
    "a [[Category:X| ]][[fr:Page]]": "a",
    "[http://e.org label] [http://e.org] [//e.org x y]": "label x y",
    "a<ref>{{cite|b}}</ref><ref name=x /> b<ref name='y'>c</ref>.": "a b.",
    "a<ref>open <ref>b</ref> c": "aopen c",
    "a {{nested {{deep|x}} | y = {{z}} }} b": "a b",
    "a<!-- {{ -->b<!-- open": "ab",
    "{| class=x\n|-\n| {{t}} [[l]]\n{|\n| inner\n|}\n|}\nafter": "after",
    "{{Infobox\n| a = {{b|c|}}\n|}}\nText": "Text",
    "x<nowiki>[[a]] {{b}}</nowiki>y": "x[[a]] {{b}}y",
    "<math>\\frac{{a}}{b}</math>": "$\\frac{ {a} }{b}$",
    "a&nbsp;b &amp; c &lt;d&gt;": "a b & c <d>",
    "H<sub>2</sub>O<br/>new line": "H2O\nnew line",
    "* one\n** two\n# three\n: four": "- one\n- two\n- three\nfour",
    "== A ==\n=== B ===\ntext\n== C ==\n{{reflist}}\n== D ==\nmore": (
        "A\n\nB\n\ntext\n\nD\n\nmore"
    ),
    "__NOTOC__text": "text",
    "{{convert|5|km|mi}}, {{convert|5|to|7|km|mi|abbr=on}}": "5 km, 5 to 7 km",
    "{{lang|fr|mot}} {{lang-de|Wort}} {{nowrap|a b}}": "mot Wort a b",
    "1939{{ndash}}1945, {{circa|1850}}, {{frac|1|2}}, {{as of|2015|5}}": (
        "1939\u20131945, c. 1850, 1/2, As of May 2015"
    ),
    "Name ({{lang-x}}; {{IPA|x}}) is": "Name (x) is",
    "Name ({{unknown|x}}) is{{unknown}}.": "Name is.",
    "<gallery>\nFile:a.jpg|x\n</gallery>b": "b",
    "<table><tr><td><table><tr><td>x</td></tr></table></td></tr></table>y": "y",
    "a < b, vector<int>, <b class='x'>bold</b>": "a < b, vector<int>, bold",
    "{{open\n| a = b\n\nText goes on.": "Text goes on.",
    "[[open text": "open text",
    "stray ]] and }} here": "stray and here",
    "<syntaxhighlight lang=c>\nif (a[[0]]) { x; }\n</syntaxhighlight>": "if (a[[0]]) { x; }",
}


@pytest.mark.parametrize("markup", CASES)
def test_constructs(markup):
    assert plain(markup) == CASES[markup]


def test_own_namespaces():
    assert plain("a [[Datei:x.jpg|b]][[Kategorie:C]]", frozenset({"datei", "kategorie"})) == "a"


OPEN = [
    "{{",
    "[[",
    "{|\n",
    "}}",
    "]]",
    "\n|}",
    "<ref>",
    "<!--",
    "<nowiki>",
    "<math>",
    "=",
    "'",
    "(",
]
OPEN += ["(", "[http:", "{{a|", "[[a|", "* ", "\n= a =", "<table>", "&", "[[a]]", "{{a}}"]
OPEN += ["( ", "[//a "]


@pytest.mark.parametrize("part", OPEN)
def test_time_is_linear(part):
    markup = part * (200_000 // len(part))
    start = time.process_time()
    plain(markup)
    assert time.process_time() - start < 3


@given(st.lists(st.sampled_from([*OPEN, "|}", "\n", "|", "a", "</ref>", "-->", "''", "*", ")"])))
def test_nothing_breaks_it(parts):
    text = plain("".join(parts))
    assert "[[" not in text
    assert "}}" not in text

"""What is found, what must not be, and that replacing leaves nothing to find.

All numbers and addresses are made up, by chance or by hand.
"""

# ruff: noqa: RUF001 (letters of other scripts are what this is about)

import ipaddress
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.clean import pii

PROSE = (
    "You can reach the office at {} on weekdays.",
    "Please write to ({}) before Friday, or wait.",
    "{} answered within the hour.",
    "The notice said: {}.",
    "Wir sind unter {}, auch am Wochenende.\nBis dann",
    "地址是 {} 。",
)


def emails(pick):
    names = ["jane.doe", "j_smith", "o'brien", "info+news", "x1", "Anna.Maria-Weber", "9lives", "a"]
    hosts = [
        "corp.net",
        "mail.uni-ulm.de",
        "bücher.de",
        "a.b.c.org",
        "xn--bcher-kva.de",
        "gov.md",
    ]
    return f"{pick.choice(names)}@{pick.choice(hosts)}"


def digits(pick, count, first="23456789"):
    return pick.choice(first) + "".join(pick.choice("0123456789") for _ in range(count - 1))


def american(pick):
    area, exchange, line = digits(pick, 3), digits(pick, 3), digits(pick, 4, "123456789")
    form = pick.choice(
        [
            "({}) {}-{}",
            "{}-{}-{}",
            "{}.{}.{}",
            "1-{}-{}-{}",
            "+1 {} {} {}",
            "+1{}{}{}",
            "+1 ({}) {}-{}",
        ]
    )
    return form.format(area, exchange, line)


def abroad(pick):
    form = pick.choice(
        [
            "+49 30 #######",
            "+49 (0)171 #######",
            "+44 20 #### ####",
            "+44-161-###-####",
            "+33 6 ## ## ## ##",
            "+33.1.##.##.##.##",
            "+39 06 ########",
            "+81-3-####-####",
            "+86 138 #### ####",
            "+91 98### #####",
            "+55 (11) 9####-####",
            "+358 40 #######",
            "01 ## ## ## ##",
            "06.##.##.##.##",
        ]
    )
    return "".join(pick.choice("123456789") if c == "#" else c for c in form)


def national(pick):
    form = pick.choice(
        [
            "Tel. 030/#######",
            "phone: 020 7### ####",
            "Fax (089) ### ###-##",
            "call me at ### ### ####",
            "mobile 07### ######",
            "Tél : 04########",
            "电话：010-########",
            "Telefon: 0049 30 #######",
            "cell ##########",
        ]
    )
    return "".join(pick.choice("2346789") if c == "#" else c for c in form)


def ipv4(pick):
    while True:
        address = ".".join(str(pick.randrange(1, 256)) for _ in range(4))
        found = ipaddress.ip_address(address)
        if found.is_global and not found.is_multicast and max(map(int, address.split("."))) >= 32:
            return address + pick.choice(["", "", ":8080", "/24"])


def ipv6(pick):
    groups = [f"{pick.randrange(1, 2**16):x}" for _ in range(6)]
    return pick.choice(["2a00:" + ":".join([*groups, "1"]), f"2620:{groups[0]}::{groups[1]}"])


PLANTED = {
    "email": [emails],
    "phone": [american, abroad, national],
    "ip": [ipv4, ipv4, ipv6],
}

LOOK_ALIKES = """
ISBN 978-3-16-148410-0
ISBN-10: 202-456-1414
ISBN: 0-306-40615-2 and ISBN 0 19 853453 1
ISSN 2049-3630
doi:10.1000/182
https://doi.org/10.1038/202-456-7890
arXiv:2112.11446v2, arXiv:1910.10683
PMID: 202-456-7890
2024-01-15 and 2024/01/15, 15.01.2024, 01/02/2003
2024-01-15T12:30:45.123456+02:00
12:30:45 until 13:00:00
on 11-12-2013 08:15
version 1.2.3.4
version 103.24.77.3
v10.0.19041.546
Release 8.44.200.7 is out
Chrome/91.0.124.66 Safari/537.36
package-52.40.200.9.tar.gz
foo==61.200.3.4
Section 3.2.1.4 says
1.2.3.4 Scope
see 4.11.2.1.9
clause 41.52.63.7
1.3.6.1.4.1.311.60.2.1
127.0.0.1, 192.168.1.20, 10.200.3.40, 172.16.254.1, 169.254.33.44
255.255.255.0
999.300.200.100
256.1.1.300
192.0.2.55, 198.51.100.77, 203.0.113.99
224.0.0.251
2001:db8::8a2e:370:7334, fe80::1ff:fe23:4567:890a, ::1, fd12:3456:789a::1
00:1a:2b:3c:4d:5e
std::vector<int>::iterator
a[::2], x[1:2:3]
2024:05:12 10:20:30
$1,234,567.89 or €12.345.678,90
+10 000 000 people, +25 000 000 people
£202-456-7890
1 234 567 890
3.14159265358979
6.02214076e23
4111111111111111
0x7ffdeadbeef0
item #202-456-7890
order 202-456-7890
123456789012345678901234567890
1-2-3-4-5-6-7-8-9
02.08.2019 - 04.09.2020
1999-2004, 2005-2010, 2011-2019
pages 1123-1131, 2034-2045
0.0.0.0:8000
@property
@media (max-width: 600px)
user@localhost
user at domain dot com
jane [at] corp [dot] net
icon@2x.png
git@github.com:org/project.git
https://user:secret@host.net/path
https://medium.com/@someone
@someone@social.net
npm install left-pad@1.3.0
a @ b
foo@
@bar.com
me@example.com, you@mail.example.org, it@site.test
call 911
the fictional 555-0123 and (202) 555-0147, +1 310 555 0199
UUID 123e4567-e89b-12d3-a456-426614174000
sha1 2fd4e1c67a2d28fced849ee1bb76e7391b93eb12
-0.123 456.789 -1234.5678
x = 1234567890
SKU 312-555-7788
for i in range(1000000000):
12345-6789
47.6062, -122.3321
GMT+0200
1.5.2-3.4.5.6
IBAN DE89 3704 0044 0532 0130 00
""".strip().split("\n")


@pytest.fixture(scope="module")
def planted():
    """Texts with one hit each, and of which kind."""
    pick = random.Random(0)
    kinds = [kind for kind in PLANTED for _ in range(120)]
    return [(pick.choice(PROSE).format(pick.choice(PLANTED[kind])(pick)), kind) for kind in kinds]


def test_planted_hits_are_found_and_nothing_else(planted):
    assert len(planted) >= 200
    missed = [text for text, kind in planted if pii.count(text)[kind] != 1]
    wrong = [text for text, kind in planted if sum(pii.count(text).values()) != 1]
    assert (missed, wrong) == ([], [])


def test_nothing_of_a_hit_is_left():
    pick = random.Random(1)
    stands_for = {"email": ["email@example.com"], "ip": ["192.0.2.1", "2001:db8::1"]}
    for kind, makers in PLANTED.items():
        for _ in range(100):
            hit = pick.choice(makers)(pick)
            found = pii.replace(f"<{hit}> and more")[0]
            word = next((w for w in ("Tel.", "call me at") if hit.startswith(w)), "")
            for replacement in stands_for.get(kind, ["+1-202-555-0100"]):
                found = found.replace(replacement, "*")
            rest = {"ip": ("", ":8080", "/24"), "email": ("",)}.get(kind)
            if rest:
                assert found in [f"<*{tail}> and more" for tail in rest]
            else:
                assert not any(c.isdigit() for c in found), (hit, found)
                assert word in found


@pytest.mark.parametrize("text", LOOK_ALIKES)
def test_look_alikes_are_left_alone(text):
    for line in (text, f"Some words, then {text}", f"{text}, and so on."):
        assert pii.replace(line) == (line, {"email": 0, "phone": 0, "ip": 0})


def test_many_in_one_text():
    text = "a@corp.net,b@corp.net; 202-456-7891, 93.184.216.34 +49 30 1234567\nTel: 030 7654321\n"
    found, counts = pii.replace(text)
    assert counts == {"email": 2, "phone": 3, "ip": 1}
    assert found == (
        "email@example.com,email@example.com; +1-202-555-0100, 192.0.2.1 +1-202-555-0100\n"
        "Tel: +1-202-555-0100\n"
    )


def test_replaced_text_has_no_hits(planted):
    joined = " ".join(text for text, _ in planted)
    found, counts = pii.replace(joined)
    assert min(counts.values()) >= 100
    assert pii.replace(found) == (found, dict.fromkeys(pii.KINDS, 0))


PIECES = st.sampled_from(
    [
        *("a", "b@c.de", "@", ".", ",", ":", "/", "-", "+", "(", ")", "1", "22", "333", "4444"),
        *(
            "202",
            "456",
            "7891",
            "030",
            "+49",
            "+1 ",
            "#",
            " ",
            "\n",
            "tel: ",
            "call",
            "isbn",
            "version",
        ),
        *("93.184.216.34", "2a00:1450::", "x=", "v"),
    ]
)


@settings(max_examples=300, deadline=None)
@given(st.lists(PIECES, max_size=14).map("".join))
def test_replacing_again_finds_nothing(text):
    found = pii.replace(text)[0]
    assert pii.replace(found) == (found, dict.fromkeys(pii.KINDS, 0))


@pytest.mark.parametrize(
    "piece", ["1 ", "+1", "a@", "1.1.1.1.", "2001:", "(2", "a.", "@a.", "12-3"]
)
def test_time_grows_with_length_only(piece):
    """A second for what would take hours if it were quadratic."""
    pii.replace(piece * (200_000 // len(piece)))

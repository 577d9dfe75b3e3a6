"""Speed of the readers of web crawls and of Wikipedia on this machine, beside peers.

    python -m benchmarks.sources --dump=enwiki-pages-articles.xml.bz2

WARC: pages made of the standard library's documentation, gzipped a record each; the peer is the
loop that fastwarc and resiliparse document, without titles, licences, offsets or checks for files
that were cut short. Wikipedia: the articles at the start of --dump, if there is one; the peer is
mwparserfromhell's strip_code, which may be installed for it. Both take turns in one process; the
median of --rounds is printed.
"""

import argparse
import ast
import gzip
import html
import json
import os
import platform
import statistics
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from xml.etree import ElementTree

from configs.corpus import Source
from data import sources
from data.sources import wikipedia
from data.sources.wikitext import plain

PAGES = 400
MARKUP = 3_000_000  # bytes


def page(path: Path) -> str:
    """A web page on a module: menu, docstrings, its code line by line, and a footer."""
    code = path.read_text("utf-8")
    tree = ast.parse(code)
    menu = "".join(f'<li><a href="/{i}">Section {i}</a></li>' for i in range(40))
    parts = [f"<h1>{path.stem}</h1>"]
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            called = getattr(node, "name", path.stem)
            paragraphs = (ast.get_docstring(node) or "").split("\n\n")
            parts.append(f"<h2 id='{called}'>{called}</h2>")
            parts += [f"<p>{html.escape(text)}</p>" for text in paragraphs]
    lines = (f"<span class=line>{html.escape(line)}</span>\n" for line in code.split("\n"))
    return (
        f"<!DOCTYPE html><html lang=en><head><meta charset=utf-8><title>{path.stem}</title>"
        f"<script>var a = {json.dumps(list(range(200)))};</script></head><body><header><nav>"
        f"<ul>{menu}</ul></nav></header><main><article>{''.join(parts)}"
        f"<pre>{''.join(lines)}</pre></article></main>"
        f"<footer><p>All rights reserved.</p><ul>{menu}</ul></footer></body></html>"
    )


def make_warc(path: Path) -> int:
    """Write the file, and return the number of its pages."""
    library = Path(sysconfig.get_path("stdlib"))
    modules = [*islice(sorted(library.glob("*.py")) + sorted(library.glob("*/*.py")), PAGES)]
    with path.open("wb") as file:
        for module in modules:
            body = page(module).encode()
            http = b"HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\n\r\n" + body
            header = (
                "WARC/1.0\r\nWARC-Type: response\r\nWARC-Date: 2024-05-18T01:58:10Z\r\n"
                f"WARC-Target-URI: http://example.org/{module.stem}\r\n"
                f"Content-Type: application/http; msgtype=response\r\n"
                f"Content-Length: {len(http)}\r\n\r\n"
            )
            file.write(gzip.compress(header.encode() + http + b"\r\n\r\n"))
    return len(modules)


def documents(source: Source) -> list[sources.Document]:
    found = [d for p in sources.pieces(source, 2**30) for d in sources.read(p, 2**24)]
    return [document for document in found if isinstance(document, sources.Document)]


def bare(path: Path) -> list[str]:
    from fastwarc.warc import ArchiveIterator, WarcRecordType
    from resiliparse.extract.html2text import extract_plain_text
    from resiliparse.parse.encoding import detect_encoding
    from resiliparse.parse.html import HTMLTree

    texts = []
    for record in ArchiveIterator(str(path), record_types=WarcRecordType.response):
        body = record.reader.read()
        tree = HTMLTree.parse_from_bytes(body, record.http_charset or detect_encoding(body) or "")
        texts.append(extract_plain_text(tree, main_content=True))
    return texts


def articles(dump: Path) -> list[str]:
    """Markup of the first articles, until there is enough."""
    source = Source(kind="wikipedia", pattern=str(dump))
    found, size = [], 0
    for _, raw in wikipedia._pages(sources.pieces(source, 2**40)[0], 2**24):
        if isinstance(raw, bytes) and b"<redirect" not in raw and b"<ns>0</ns>" in raw:
            found.append(ElementTree.fromstring(raw).findtext("revision/text") or "")
            size += len(found[-1].encode())
        if size > MARKUP:
            break
    return found


def strip_code(texts: list[str]) -> list[str]:
    import mwparserfromhell

    return [mwparserfromhell.parse(text).strip_code() for text in texts]


def measure(ways: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median seconds of each over rounds in which they take turns, after one that is not counted.

    Seconds of the processor, since others may be at work on this machine.
    """

    def seconds(way: Callable[[], object]) -> float:
        start = time.process_time()
        way()
        return time.process_time() - start

    found = [{name: seconds(way) for name, way in ways.items()} for _ in range(rounds + 1)][1:]
    return {name: statistics.median(row[name] for row in found) for name in ways}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dump", type=Path, help="a dump of Wikipedia, pages-articles")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    machine = f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores"
    print(f"{machine}, Python {platform.python_version()}")
    results: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "made.warc.gz")
        pages = make_warc(path)
        source = Source(kind="warc", pattern=str(path))
        if [document.text for document in documents(source)] != bare(path):
            sys.exit("the texts differ from those of the bare loop")
        found = measure(
            {"warc": lambda: documents(source), "peer: bare loop": lambda: bare(path)},
            arguments.rounds,
        )
        for name, seconds in found.items():
            results[name] = pages / seconds
            print(f"{name:28} {results[name]:10.0f} records/s")
        results["warc ratio"] = found["peer: bare loop"] / found["warc"]
        print(f"{'ratio':28} {results['warc ratio']:10.2f}")
    if arguments.dump:
        texts = articles(arguments.dump)
        size = sum(len(text.encode()) for text in texts)
        ways: dict[str, Callable[[], object]] = {"wiki markup": lambda: [*map(plain, texts)]}
        try:
            import mwparserfromhell  # noqa: F401

            ways["peer: mwparserfromhell"] = lambda: strip_code(texts)
        except ImportError:
            print("pip install mwparserfromhell to compare with its strip_code")
        found = measure(ways, arguments.rounds)
        for name, seconds in found.items():
            results[name] = size / seconds / 1e6
            print(f"{name:28} {results[name]:10.2f} MB/s")
        if len(found) > 1:
            results["wiki ratio"] = found["peer: mwparserfromhell"] / found["wiki markup"]
            print(f"{'ratio':28} {results['wiki ratio']:10.2f}")
    if arguments.json:
        record = {"machine": machine, "date": time.strftime("%Y-%m-%d"), **results}
        arguments.json.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()

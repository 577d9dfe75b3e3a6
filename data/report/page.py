"""The report as one page of HTML that needs nothing else: tables, bars, samples."""

from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

from data.stages import select

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60em; margin: 2em auto; padding: 0 1em }
h1 { font-size: 1.6em }
h2 { font-size: 1.2em; margin-top: 2em; border-bottom: 1px solid #ccc }
h3 { font-size: 1em; margin-bottom: .2em }
table { border-collapse: collapse; width: 100% }
td, th { padding: .15em .6em; text-align: right }
th { border-bottom: 1px solid #999; font-weight: 600 }
td:first-child, th:first-child, td.track, th.track { text-align: left }
tr:nth-child(even) { background: #f6f6f6 }
td.track { white-space: nowrap; width: 12.5em }
.bar { display: inline-block; height: .8em; background: #4878a8; vertical-align: middle }
.cut { background: #c8704f }
.charts { display: flex; flex-wrap: wrap; gap: 1em }
figure { margin: 0 }
figcaption { font-size: .85em }
blockquote { margin: .3em 0 .8em; padding: .3em .8em; background: #f6f6f6; white-space: pre-wrap;
  overflow-wrap: anywhere; font: 13px/1.4 ui-monospace, monospace }
.note { color: #555; font-size: .9em }
"""

_TRACKS = ("text kept and dropped", "share", "documents kept and dropped", "dropped")  # hold bars


def page(report: dict[str, Any]) -> str:
    """The whole page, from what data.report.collect found."""
    sections = [
        _funnel(report),
        _sources(report),
        _dropped(report),
        _shares(
            "Languages",
            report["languages"],
            "No language was identified: the recipe cleans nothing.",
        ),
        _shares("Most frequent domains", report["domains"], "No document has a URL."),
        _changes(report),
        _histograms(report["histograms"]),
        _samples(report["samples"]),
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f"<title>Corpus report</title><style>{_STYLE}</style></head>\n"
        f"<body><h1>Corpus report</h1>\n{''.join(sections)}</body></html>\n"
    )


def _funnel(report: dict[str, Any]) -> str:
    most = max((step["text_bytes"][0] for step in report["funnel"]), default=1) or 1
    rows = [
        [
            escape(step["step"]),
            *(f"{count:,}" for count in step["documents"]),
            *(f"{count:,}" for count in step["tokens"]),
            _bar(
                step["text_bytes"][1] / most, (step["text_bytes"][0] - step["text_bytes"][1]) / most
            ),
        ]
        for step in report["funnel"]
    ]
    head = ["step", "documents in", "out", "tokens in", "out", "text kept and dropped"]
    note = (
        '<p class="note">Tokens before the encoding are estimated from bytes, at '
        f"{report['tokens_per_byte']:.3f} tokens a byte. A document is dropped for the first "
        "reason that holds.</p>"
    )
    return _section("From source to store", _table(head, rows) + note)


def _sources(report: dict[str, Any]) -> str:
    total = sum(c[2] for s in report["sources"].values() for c in s["written"].values()) or 1
    rows = []
    for name, source in report["sources"].items():
        train, validation = source["written"].values()
        tokens = train[2] + validation[2]
        rows.append(
            [
                escape(name),
                f"{source['read'][0]:,}",
                f"{source['selected'][0]:,}",
                f"{train[2]:,}",
                f"{validation[2]:,}",
                f"{tokens / total:.1%} {_bar(tokens / total)}",
            ]
        )
    head = ["source", "documents read", "selected", "train tokens", "validation tokens", "share"]
    return _section("Sources", _table(head, rows))


def _dropped(report: dict[str, Any]) -> str:
    dropped = sorted(report["dropped"].items(), key=lambda item: -item[1][0])
    most = dropped[0][1][0] if dropped and dropped[0][1][0] else 1
    rows = [
        [escape(why), f"{documents:,}", f"{size:,}", _bar(0, documents / most)]
        for why, (documents, size) in dropped
    ]
    faults = "".join(f"<li>{escape(fault)}</li>" for fault in report["faults"])
    body = _table(["reason", "documents", "bytes", "dropped"], rows) if rows else "<p>Nothing.</p>"
    if faults:
        body += f"<h3>Could not be read</h3><ul>{faults}</ul>"
    return _section("Why documents were dropped", body)


def _shares(title: str, names: dict[str, Any], none: str) -> str:
    if not names:
        return _section(title, f"<p>{none}</p>")
    total = sum(count["in"][0] for count in names.values()) or 1
    ordered = sorted(names.items(), key=lambda item: (-item[1]["in"][0], item[0]))
    rows = [
        [
            escape(name) or "(none)",
            f"{count['in'][0]:,}",
            f"{count['kept'][0]:,}",
            _bar(count["kept"][0] / total, (count["in"][0] - count["kept"][0]) / total),
        ]
        for name, count in ordered[:50]
    ]
    return _section(
        title, _table(["", "documents in", "selected", "documents kept and dropped"], rows)
    )


def _changes(report: dict[str, Any]) -> str:
    rows = [[escape(what), f"{count:,}"] for what, count in sorted(report["edits"].items())]
    rows.append(
        [
            "documents in which an address or number of a person was found",
            f"{report['pii_documents']:,}",
        ]
    )
    rows += [
        [
            f"documents that share an n-gram with {escape(name)} ({found['ngrams']:,} n-grams)",
            f"{found['documents']:,}",
        ]
        for name, found in report["contamination"].items()
    ]
    rows += [[f"repeated {what} cut", f"{count:,}"] for what, count in report["repeats"].items()]
    return _section("Changes, people, evaluation sets", _table(["", "count"], rows))


def _histograms(histograms: dict[str, dict[str, int]]) -> str:
    charts = "".join(_chart(name, bins) for name, bins in sorted(histograms.items()) if bins)
    note = (
        '<p class="note">Documents by what was measured, before the selection; below the first and '
        "the last bar the lower edge of what it counts.</p>"
    )
    return _section("Lengths and quality", note + f'<div class="charts">{charts}</div>')


def _chart(name: str, bins: dict[str, int]) -> str:
    """Bars over the lower edges of bins, with the bins in between in which nothing is."""
    edges = select.edges([float(edge) for edge in bins])
    counts = [bins.get(f"{edge:.12g}", 0) for edge in edges]
    most, width, height = max(counts), 180, 60
    step = width / len(edges)
    bars = "".join(
        f'<rect x="{i * step:.1f}" y="{height - height * count / most:.1f}" '
        f'width="{max(step - 1, 1):.1f}" height="{height * count / most:.1f}" fill="#4878a8">'
        f"<title>from {edge:g}: {count:,}</title></rect>"
        for i, (edge, count) in enumerate(zip(edges, counts, strict=True))
    )
    axis = (
        f'<text x="0" y="{height + 13}" font-size="11">{edges[0]:g}</text>'
        f'<text x="{width}" y="{height + 13}" font-size="11" text-anchor="end">{edges[-1]:g}</text>'
    )
    return (
        f'<figure><svg width="{width}" height="{height + 16}" role="img">{bars}{axis}</svg>'
        f"<figcaption>{escape(name)}</figcaption></figure>"
    )


def _samples(samples: dict[str, list[dict[str, str]]]) -> str:
    parts = []
    for reason, several in samples.items():
        quotes = "".join(
            f'<div class="note">{escape(s["source"])}, {escape(s["id"])}</div>'
            f"<blockquote>{escape(s['text'])}</blockquote>"
            for s in several
        )
        parts.append(
            f"<details><summary>{escape(reason)} ({len(several)})</summary>{quotes}</details>"
        )
    return _section("Samples of what was dropped", "".join(parts) or "<p>None.</p>")


def _section(title: str, body: str) -> str:
    return f"<h2>{title}</h2>{body}"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    tracks = [' class="track"' if name in _TRACKS else "" for name in head]
    cells = list(zip(head, tracks, strict=True))
    top = "".join(f"<th{track}>{cell}</th>" for cell, track in cells)
    body = "".join(
        "<tr>"
        + "".join(f"<td{track}>{cell}</td>" for cell, track in zip(row, tracks, strict=True))
        + "</tr>\n"
        for row in rows
    )
    return f"<table><tr>{top}</tr>{body}</table>"


def _bar(share: float, cut: float = 0.0) -> str:
    width = 12
    return (
        f'<span class="bar" style="width:{width * share:.2f}em"></span>'
        f'<span class="bar cut" style="width:{width * cut:.2f}em"></span>'
    )

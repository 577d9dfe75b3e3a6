"""The sections of the page: what is said in words, and places for figures."""

from collections.abc import Sequence
from html import escape
from typing import Any

from scaling.report import ladders
from scaling.report.inputs import allocation
from scaling.report.repeat import command
from scaling.report.words import TIMES, count, digits, power

_SEVERITIES = {"refuse": "wrong", "warn": "caution", "note": "note"}
_AFTER = ("at_bound", "equal_exponents")  # findings of scaling.diagnose.fitted
_OBJECTIVES = {
    "huber": "Huber's objective (linear beyond {delta:g})",
    "lad": "least absolute deviations",
    "squared": "least squares",
}


def body(report: dict[str, Any]) -> str:
    """Everything between <body> and the scripts."""
    parts = [
        ("diagnosis", "What is known of the table", _diagnosis(report)),
        ("curves", "Curves", _curves(report)),
        ("fit", "The law and the rows", _fit(report)),
        ("parameters", "Parameters", _parameters(report)),
        ("isoflop", "IsoFLOP curves", _isoflop(report)),
        ("frontier", "The compute frontier", _frontier(report)),
        ("allocation", "Dividing a budget", allocation(report)),
        ("backtest", "Backtest", _backtest(report)),
        ("ladder", "What came true", _ladder(report)),
        ("repeat", "How to repeat this", _repeat(report)),
    ]
    there = [(name, title, text) for name, title, text in parts if text]
    links = "".join(f'<a href="#{name}">{title}</a>' for name, title, _ in there)
    texts = "".join(
        f'<section id="{name}"><h2>{title}</h2>{text}</section>\n' for name, title, text in there
    )
    return f"{_head(report)}<nav>{links}</nav>\n{texts}"


def _head(report: dict[str, Any]) -> str:
    rows, fit = report["rows"], report["fit"]
    spread = sorted(abs(v) for v in rows["residual"] if v is not None)
    facts = [
        (f"{fit['n']} rows", fit["mask"]),
        (f"{100 * spread[len(spread) // 2]:.2g} %", "typical distance of a row from the law"),
    ]
    compute = [v for v in rows["columns"].get("C", []) if v]
    if compute:
        facts.append((f"{power(min(compute))} to {power(max(compute))}", "operations of the rows"))
    floor = next((p for p in report["parameters"] if p["name"] == "E"), None)
    if floor:
        facts.append((digits(floor["value"], 4), "floor of the loss, nats per token"))
    cards = "".join(f"<div><b>{escape(a)}</b><span>{escape(b)}</span></div>" for a, b in facts)
    return (
        "<header><div><h1>Scaling law report</h1>"
        f'<p class="note">{escape(report["law"])}: {escape(report["source"])}</p></div>'
        '<button type="button" id="theme">light or dark</button></header>'
        f'<div class="facts">{cards}</div>'
        "<noscript><p>The figures are drawn by a script, which this browser does not run; "
        "the words and tables are complete without it.</p></noscript>"
    )


def _diagnosis(report: dict[str, Any]) -> str:
    before = [_item(f) for f in report["findings"] if f["code"] not in _AFTER]
    after = [_item(f) for f in report["findings"] if f["code"] in _AFTER]
    flags = [("warn", f"{text} [{name}]") for name, text in report["fit"]["flags"].items()]
    open_ = [
        ("warn", text) for text in report["identified"].values() if "is not identified" in text
    ]
    conventions = report["read"].get("conventions") or {}
    counted = ", ".join(f"{name}: {text}" for name, text in conventions.items())
    said = f"<p>Conventions known: {escape(counted)}.</p>" if counted else ""
    if not counted and {"N", "C"} & set(report["symbols"]):
        said = (
            "<p>The table does not say whether N counts embeddings, and C attention: predictions "
            "hold for the same counts only.</p>"
        )
    return (
        said
        + "<h3>Before the fit</h3>"
        + _list(before, "Nothing was found against the table.")
        + "<h3>After the fit</h3>"
        + _list(
            after + flags + open_,
            "The minimum is certified, and the rows determine every parameter.",
        )
    )


def _item(finding: dict[str, Any]) -> tuple[str, str]:
    return finding["severity"], f"{finding['sentence']} [{finding['code']}]"


def _list(items: Sequence[tuple[str, str]], none: str) -> str:
    if not items:
        return f"<p>{none}</p>"
    lines = "".join(
        f'<li class="{escape(severity)}"><b>{_SEVERITIES.get(severity, "note")}</b>: '
        f"{escape(sentence)}</li>"
        for severity, sentence in items
    )
    return f'<ul class="findings">{lines}</ul>'


def _curves(report: dict[str, Any]) -> str:
    if not report["curves"]:
        return ""
    return '<div class="choices" id="choose-curves"></div>' + figure(
        "curves",
        "Losses of single runs: lines for training, means over short stretches; dots for "
        "evaluations.",
    )


def _fit(report: dict[str, Any]) -> str:
    lines = report["lines"]
    if lines["lines"]:
        each = f", a line for each size {escape(lines['by'])}" if lines["by"] else ""
        text = f"Rows as points, the law as lines{each}; shaded is what resampled rows would give."
    else:
        text = "The law has more than two columns, so that no line can be drawn through the rows."
    return (
        '<div class="choices" id="choose-fit"></div>'
        + figure("fit", text)
        + "<h3>What the law leaves over</h3>"
        "<p>A pattern here, such as a bend or a slope, is what the law does not know, and it grows "
        "beyond the rows.</p>"
        '<div class="choices" id="choose-residuals"></div>'
        + figure("residuals", "Observed over predicted, row by row.")
    )


def _parameters(report: dict[str, Any]) -> str:
    fit = report["fit"]
    rows = []
    for each in report["parameters"]:
        name, value = escape(each["name"]), digits(each["value"])
        sure = "held" if not each["fitted"] else ""
        if each["interval"]:
            low, high = each["interval"]
            sure = f"{digits(low, 4)} to {digits(high, 4)}"
        rows.append(
            f'<tr><td><b>{name}</b></td><td class="number">{value}</td>'
            f'<td class="number">{sure}</td><td>{escape(each["what"])}</td></tr>'
        )
    level = f"{fit['level']:.0%} interval" if fit["level"] else "interval"
    return (
        f'<div class="wide"><table><tr><th></th><th>value</th><th>{level}</th><th>what it is</th>'
        f'</tr>{"".join(rows)}</table></div><p class="note">{escape(_how(report))}</p>'
    )


def _how(report: dict[str, Any]) -> str:
    """How the parameters were found, and how surely."""
    fit, resamples = report["fit"], report["resamples"]
    objective = _OBJECTIVES[fit["loss"]].format(delta=fit["delta"])
    rivals = len(fit["minima"]) - 1
    others = {0: "no other minimum was found", 1: "one other minimum was found"}
    refits = "The fit was made without resamples: there are no intervals."
    if resamples:
        refits = (
            f"Intervals are from {resamples} refits to resampled rows, and hold if the law does."
        )
    what = {"log": "the logarithm of "}.get(fit["space"], "") + report["observed"]
    return (
        f"Fitted by {objective} of {what}, summed over rows: "
        f"{fit['objective']:.6g}. The projected gradient is {fit['gradient_norm']:.1g} of what the "
        f"rows contribute; {fit['agreeing']} of {fit['starts']} starts ended in this minimum, and "
        f"{others.get(rivals, f'{rivals} other minima were found')}. {refits}"
    )


def _isoflop(report: dict[str, Any]) -> str:
    if not report["isoflop"]:
        return ""
    powers = report["isoflop"]["powers"]
    left = [b["why"] for b in report["isoflop"]["budgets"] if b["why"]]
    text = ""
    if powers:
        said = [
            f"{name}* = {digits(p['coefficient'], 3)} {TIMES} C^{p['exponent']:.3f} "
            f"(95 %: {p['interval'][0]:.3f} to {p['interval'][1]:.3f})"
            for name, p in powers.items()
        ]
        text = f"<p>Through the minima, whatever the law: {'; '.join(said)}.</p>"
    return (
        "<p>Runs of one budget, C = 6 N D, with a parabola over log N for each. Filled points are "
        "the minima: the best size of a budget, without any law of the loss.</p>"
        + text
        + "".join(f"<p>{escape(why)}.</p>" for why in left)
        + figure("isoflop", "Loss over parameters, a curve for each budget.")
    )


def _frontier(report: dict[str, Any]) -> str:
    found = report["frontier"]
    if not found:
        return ""
    if found["why"]:
        return f"<p>{escape(found['why'])}.</p>"
    ends = " to ".join(f"{count(found['N'][i])} parameters" for i in (0, -1))
    return (
        f"<p>The best division of each budget of C = 6 N D operations, {ends}. The shaded stretch "
        "is where the rows are; the dashed line is the budget chosen below.</p>"
        + figure("frontier", "The best parameters and tokens of a budget.")
        + figure("losses", "The loss there, with the interval of one new run.")
    )


def _backtest(report: dict[str, Any]) -> str:
    found = report["backtest"]
    sentence = f"<p>{escape(_sentence(found['sentence']))}</p>"
    if not found["ratio"]:
        return sentence
    drift = "".join(
        f'<tr><td class="number">{ratio:g} times</td>'
        f'<td class="number">{100 * error:+.2f} %</td></tr>'
        for ratio, error in found["drift"]
    )
    return (
        "<p>What the law would have said of the larger rows, fitted to the smaller ones alone.</p>"
        f"{sentence}"
        + figure("backtest", "Predicted over observed: above zero it expected too high a loss.")
        + f"<table><tr><th>beyond the fitted rows</th><th>mean error</th></tr>{drift}</table>"
    )


def _ladder(report: dict[str, Any]) -> str:
    text = ladders.section(report["ladder"])
    if not text or not report["ladder"]["held_out"]:
        return text
    return text + figure(
        "ladder", "Predicted over observed for each run held out, with intervals: zero is true."
    )


def _repeat(report: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {text}" for name, text in report["versions"].items())
    read = report["read"]
    units = ", ".join(f"{name} = {text}" for name, text in (read.get("units") or {}).items())
    return (
        f"<pre>{escape(command(report))}</pre>"
        f"<p>Rows: {escape(report['fit']['mask'])}. Columns: {escape(units)}. "
        f"Made with {escape(versions)}.</p>"
    )


def _sentence(text: str) -> str:
    """With a capital and a full stop."""
    return f"{text[:1].upper()}{text[1:]}."


def figure(name: str, caption: str) -> str:
    """The place of a figure, and what it shows."""
    return (
        f'<figure><div class="plot" id="plot-{name}"></div>'
        f"<figcaption>{caption}</figcaption></figure>"
    )

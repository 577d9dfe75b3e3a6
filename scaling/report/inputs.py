"""The section of the page in which a budget is chosen."""

from typing import Any

_ANSWERS = (
    ("best-N", "parameters N"),
    ("best-D", "training tokens D"),
    ("best-ratio", "tokens a parameter"),
    ("best-loss", "forecast of the loss"),
    ("best-interval", "its interval"),
    ("law-loss", "loss by the law alone"),
    ("reach", "compute of the run"),
    ("flat", "sizes within 1 % of the best loss"),
    ("worse", "what this size costs"),
)
_PRICES = (
    ("hours", "device-hours"),
    ("days", "on all devices"),
    ("money", "price, in the unit of an hour's"),
)
_NEEDS_LAW = ("flat", "worse", "served")  # the law itself, which the page knows for some
_SERVED = (("served", "tokens to serve when trained", "0", "any"),)
_DEVICES = (
    ("peak", "peak of a device, dense, 10¹² operations/s", "989", "any"),
    ("mfu", "share of the peak reached, %", "40", "any"),
    ("devices", "devices", "8", "1"),
    ("price", "price of a device-hour", "2", "any"),
)


def allocation(report: dict[str, Any]) -> str:
    """Sliders and inputs, and places for the answers; empty where the law divides no budget."""
    found = report["frontier"]
    if not found or found["why"]:
        return ""
    return (
        "<p>Training costs 6 N D operations, and serving 2 N for each token. At the best division "
        "more parameters and more tokens gain the same per operation.</p>"
        '<label class="slide">Budget: <b id="budget-shown"></b>'
        '<input id="budget" type="range"></label>'
        '<label class="slide needs-law">Size: <b id="factor-shown"></b>'
        '<input id="factor" type="range" min="-1" max="1" step="0.05" value="0"></label>'
        f"{_inputs(_SERVED)}{_answers(_ANSWERS)}"
        '<p class="caution" id="warning"></p><p class="note" id="reason"></p>'
        '<figure class="needs-law"><div class="plot" id="plot-sizes"></div>'
        "<figcaption>Loss over parameters at this budget. The shaded sizes are within 1 % of the "
        f"best loss.</figcaption></figure><h3>Time and price</h3>{_inputs(_DEVICES)}"
        f"{_answers(_PRICES)}"
    )


def _answers(answers: tuple[tuple[str, str], ...]) -> str:
    cells = "".join(
        f'<div class="answer{_hidden(name)}"><span>{title}</span>'
        f'<output id="{name}"></output></div>'
        for name, title in answers
    )
    return f'<div class="answers">{cells}</div>'


def _inputs(inputs: tuple[tuple[str, str, str, str], ...]) -> str:
    labels = "".join(
        f'<label class="input{_hidden(name)}"><span>{title}</span><input id="{name}" type="number" '
        f'inputmode="decimal" min="0" step="{step}" value="{value}"></label>'
        for name, title, value, step in inputs
    )
    return f'<div class="inputs">{labels}</div>'


def _hidden(name: str) -> str:
    return " needs-law" if name in _NEEDS_LAW else ""

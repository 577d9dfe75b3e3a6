"""What a ladder predicted of the runs it held out, and what came true."""

import json
from html import escape
from pathlib import Path
from typing import Any

from configs.schema import InputError, require
from scaling.report.words import count, trim

FORMAT = 1
_KEPT = (
    *("run", "N", "D", "loss", "standard_error", "prediction", "lower", "upper", "plain_lower"),
    *("plain_upper", "level", "why", "warning", "error", "inside", "compute_ratio"),
)


def read(folder: str) -> dict[str, Any]:
    """The held-out runs of a ladder, from what scaling.ladder wrote into its folder.

    Raises InputError where it has written nothing yet, or something of another format.
    """
    path = Path(folder) / "ladder.json"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}; scaling.ladder writes it") from error
    except ValueError as error:
        raise InputError(f"{path} is not JSON ({error}): run scaling.ladder again") from error
    known = found.get("format") if isinstance(found, dict) else None
    require(known == FORMAT, f"{path} is no ladder of format {FORMAT}: run scaling.ladder again")
    try:
        return {
            "held_out": [{name: each[name] for name in _KEPT} for each in found["held_out"]],
            "beside": found["beside"],
            "left_out": found["left_out"],
            "why_no_fit": found["why_no_fit"],
            "runs": len(found["runs"]),
        }
    except KeyError as error:
        raise InputError(f"{path} lacks {error}: run scaling.ladder again") from error


def section(ladder: dict[str, Any] | None) -> str:
    """The section of the page, but for its figure."""
    if not ladder:
        return ""
    left = "".join(
        f"<p>{escape(run)} is left out: {escape(why)}.</p>"
        for run, why in ladder["left_out"].items()
    )
    if not ladder["held_out"]:
        return f"<p>{ladder['runs']} runs, none of them held out.</p>{left}"
    rows = "".join(_row(each) for each in ladder["held_out"])
    head = ("run", "N", "D", "observed", "predicted", "interval", "error", "inside")
    cells = "".join(f"<th>{name}</th>" for name in head)
    inside = sum(bool(each["inside"]) for each in ladder["held_out"])
    return (
        f"<p>The law was fitted to the smaller runs of the ladder, and asked for "
        f"{len(ladder['held_out'])} larger that it had not seen: {inside} came out inside the "
        f'interval.</p><div class="wide"><table><tr>{cells}</tr>{rows}</table></div>'
        f"{_beside(ladder)}{left}"
    )


def _row(each: dict[str, Any]) -> str:
    spread = each["standard_error"]
    observed = f"{each['loss']:.4f}" + (f" ± {spread:.4f}" if spread else "")
    cells = (
        *(each["run"], count(each["N"]), count(each["D"]), observed, f"{each['prediction']:.4f}"),
        f"{each['lower']:.4f} to {each['upper']:.4f}",
        f"{100 * each['error']:+.2f} %",
        "yes" if each["inside"] else "no",
    )
    return "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in cells) + "</tr>"


def _beside(ladder: dict[str, Any]) -> str:
    said = []
    for each in ladder["beside"]:
        errors = ", ".join(f"{100 * error:+.2f} %" for error in each["errors"])
        said.append(f"{each['law']} by {each['objective']}: {errors or each['why_not']}")
    if not said:
        return ""
    ratio = max(each["compute_ratio"] for each in ladder["held_out"])
    return (
        f'<p class="note">The largest has {trim(ratio)} times the compute of the fitted runs. '
        f"Chosen beforehand was the law above; others, beside it, had erred by: "
        f"{escape('; '.join(said))}.</p>"
    )

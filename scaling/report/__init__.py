"""A fit for people: what the table holds, what the law says, how far to trust it, what to do."""

import importlib.metadata
import json
import platform
from pathlib import Path
from typing import Any

from configs.schema import InputError
from scaling import record
from scaling.backtest import backtest
from scaling.fit import Fit
from scaling.report import figures
from scaling.uncertainty import Bootstrap

FORMAT = 1
_LEVEL = 0.95


def collect(
    path: str,
    curves: list[dict[str, Any]] | None = None,
    ladder: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Everything the page and the plots show, as plain values, from the file of a fit.

    `curves` is what scaling.report.curves gives, and `ladder` what scaling.report.ladders reads.
    Raises InputError for a file that holds no fit.
    """
    try:
        return _collect(path, curves, ladder)
    except KeyError as error:
        raise InputError(
            f"--fit={path} lacks {error}: another version wrote it; write it anew with scaling.fit"
        ) from error


def _collect(
    path: str, curves: list[dict[str, Any]] | None, ladder: dict[str, Any] | None
) -> dict[str, Any]:
    fit, draws = record.load(path)
    said = json.loads(Path(path).read_text())
    level = draws.level if draws else _LEVEL
    tested = record.load_backtest(path) or backtest(fit)
    return {
        "format": FORMAT,
        "law": fit.law.name,
        "observed": fit.law.observed,
        "symbols": dict(fit.law.symbols),
        "source": fit.law.source,
        "parameters": _parameters(said, fit, draws),
        "fit": {
            name: said[name]
            for name in (
                *("n", "mask", "loss", "delta", "space", "objective", "gradient_norm", "starts"),
                *("agreeing", "fixed", "tied", "flags", "minima", "level"),
            )
        },
        "findings": said["findings"],
        "identified": said["identified"],
        "read": said["read"],
        "resamples": len(next(iter(draws.draws.values()))) if draws else 0,
        "rows": figures.rows(fit),
        "lines": figures.lines(fit, draws),
        "isoflop": figures.parabolas(fit),
        "frontier": figures.frontier(fit, draws, level, tested),
        "backtest": figures.backtested(tested),
        "ladder": ladder,
        "curves": curves or [],
        "versions": versions(),
    }


def _parameters(said: dict[str, Any], fit: Fit, draws: Bootstrap | None) -> list[dict[str, Any]]:
    """Each parameter of the law: its value, what it means, and how sure it is."""
    return [
        {
            "name": each.name,
            "what": each.what,
            "value": fit.parameters[each.name],
            "fitted": each.name in fit.free,
            "error": draws.standard_errors.get(each.name) if draws else None,
            "interval": list(draws.intervals.get(each.name, ())) if draws else [],
            "sentence": said["identified"].get(each.name, ""),
        }
        for each in fit.law.parameters
    ]


def versions() -> dict[str, str]:
    """What computed this: Python and the packages whose versions matter."""
    found = {name: importlib.metadata.version(name) for name in ("numpy", "scipy")}
    try:
        own = {"isoflop": importlib.metadata.version("isoflop")}
    except importlib.metadata.PackageNotFoundError:  # run from a clone that was not installed
        own = {}
    return {**own, "python": platform.python_version(), **found}

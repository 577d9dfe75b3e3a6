"""A fit as JSON: what `python -m scaling.fit` writes, and the other commands read."""

import json
import math
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np

from configs.schema import InputError, require
from scaling import laws
from scaling.backtest import Backtest
from scaling.fit import Fit, Minimum
from scaling.suspects import Finding
from scaling.uncertainty import Bootstrap, Profile

FORMAT = 1


def to_json(
    fit: Fit,
    draws: Bootstrap | None,
    profiles: Collection[Profile],
    findings: Collection[Finding],
    read: dict[str, Any],
    tested: Backtest | None = None,
) -> dict[str, Any]:
    """Plain values: the fit, how sure it is, what was said of its table, and the rows themselves.

    `read` says how the table was read. Without resamples standard errors and intervals are empty;
    without `tested` there is no backtest, and scaling.predict makes one from the rows.
    """
    return {
        "format": FORMAT,
        "law": fit.law.name,
        "source": fit.law.source,
        "parameters": dict(fit.parameters),
        "objective": fit.objective,
        "gradient_norm": fit.gradient_norm,
        "minima": [
            {"objective": m.objective, "parameters": dict(m.parameters), "starts": m.starts}
            for m in fit.minima
        ],
        "starts": fit.starts,
        "agreeing": fit.agreeing,
        "standard_errors": dict(draws.standard_errors) if draws else {},
        "intervals": {name: list(ends) for name, ends in draws.intervals.items()} if draws else {},
        "level": draws.level if draws else None,
        "identified": {each.name: each.sentence for each in profiles},
        "flags": dict(fit.flags),
        "n": fit.n,
        "mask": fit.mask,
        "loss": fit.loss,
        "delta": fit.delta,
        "space": fit.space,
        "fixed": dict(fit.fixed),
        "tied": dict(fit.tied),
        "findings": [
            {"code": f.code, "severity": f.severity, "rows": list(f.rows), "sentence": f.sentence}
            for f in findings
        ],
        "read": read,
        "backtest": _backtest(tested) if tested else None,
        "table": {name: values.tolist() for name, values in fit.table.items()},
        "weights": fit.weights.tolist(),
        "draws": {name: values.tolist() for name, values in draws.draws.items()} if draws else {},
        "failed": draws.failed if draws else 0,
    }


def _backtest(tested: Backtest) -> dict[str, Any]:
    """A backtest as plain values, a list for each of its columns."""
    return {
        "by": tested.by,
        "cutoff": tested.cutoff_n.tolist(),
        "target": tested.target_n.tolist(),
        "row": tested.row_n.tolist(),
        "predicted": tested.predicted_n.tolist(),
        "observed": tested.observed_n.tolist(),
        "drift": {f"{ratio:g}": error for ratio, error in tested.drift.items()},
        "sentence": tested.sentence,
    }


def load_backtest(path: str) -> Backtest | None:
    """The backtest in a file; None where it was written without one."""
    found = _read(path).get("backtest")
    if found is None:
        return None
    columns = ("cutoff", "target", "row", "predicted", "observed")
    cutoff, target, row, predicted, observed = (np.array(found[name]) for name in columns)
    drift = {float(ratio): error for ratio, error in found["drift"].items()}
    return Backtest(
        found["by"], cutoff, target, row.astype(int), predicted, observed, drift, found["sentence"]
    )


def _read(path: str) -> dict[str, Any]:
    """What a file holds, checked to be a fit."""
    try:
        found = json.loads(Path(path).read_text())
    except OSError as error:
        raise InputError(f"--fit={path}: {error.strerror}; write one with scaling.fit") from error
    except ValueError as error:
        raise InputError(f"--fit={path} is not JSON ({error}): write it anew") from error
    known = found.get("format") if isinstance(found, dict) else None
    require(known == FORMAT, f"--fit={path} is no fit of format {FORMAT}: write it anew")
    return dict(found)


def load(path: str) -> tuple[Fit, Bootstrap | None]:
    """The fit in a file, and its resamples. Raises InputError for a file that holds none."""
    found = _read(path)
    fit = Fit(
        law=laws.get(found["law"]),
        minima=tuple(Minimum(**each) for each in found["minima"]),
        table={name: np.array(values) for name, values in found["table"].items()},
        weights=np.array(found["weights"]),
        **{
            name: found[name]
            for name in (
                *("parameters", "objective", "gradient_norm", "n", "starts", "agreeing", "loss"),
                *("delta", "space", "mask", "fixed", "tied", "flags"),
            )
        },
    )
    if not found["draws"]:
        return fit, None
    intervals = {name: (low, high) for name, (low, high) in found["intervals"].items()}
    draws = {name: np.array(values) for name, values in found["draws"].items()}
    errors = found["standard_errors"]
    return fit, Bootstrap(draws, errors, intervals, found["level"], found["failed"])


def write(path: str, flag: str, values: dict[str, Any]) -> None:
    """Write what a command found, if it was given a file. Numbers that are not finite are null."""
    if not path:
        return
    try:
        Path(path).write_text(json.dumps(_finite(values), indent=1) + "\n")
    except OSError as error:
        raise InputError(f"--{flag}={path}: {error.strerror}; choose another file") from error
    print(f"as JSON: {path}")


def places(text: str, flag: str) -> dict[str, float]:
    """Numbers by name, from "N=7e9,D=2e12"."""
    found = {}
    for part in filter(None, text.split(",")):
        name, _, value = part.partition("=")
        try:
            found[name.strip()] = float(value)
        except ValueError as error:
            raise InputError(
                f'--{flag}: {part!r} is not NAME=NUMBER, as in --{flag}="N=7e9,D=2e12"'
            ) from error
    return found


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value

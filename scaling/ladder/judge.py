"""What a ladder says of its held-out runs, and whether that came true."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from configs.schema import InputError
from scaling import laws, record, tables
from scaling.backtest import backtest
from scaling.calibration import forecast
from scaling.diagnose import diagnose, refuse
from scaling.fit import Fit, Objective, fit
from scaling.ladder.collect import Row
from scaling.suspects import Finding
from scaling.uncertainty import bootstrap, profile

STANDARD = ("chinchilla", "huber")  # chosen beforehand; the others are shown beside it
_BESIDE: tuple[tuple[str, Objective], ...] = (("chinchilla", "squared"), ("kaplan_ND", "huber"))
_LEVEL = 0.95


@dataclass(frozen=True)
class Verdict:
    """The fit of a ladder's smaller runs, and its prediction of the larger ones."""

    why_not: str  # why there is no fit, or an empty text
    findings: tuple[Finding, ...]
    fit: Fit | None
    stored: dict[str, Any] | None  # the fit as scaling.record writes it
    held_out: tuple[dict[str, Any], ...]  # run, N, D, loss, prediction, lower, upper, error, ...
    beside: tuple[dict[str, Any], ...]  # other laws and objectives: law, objective, error of each


def judge(rows: Sequence[Row], path: str, count: str) -> Verdict:
    """Fit the rows that are not held out, and predict those that are.

    `error` is predicted / observed - 1. The standard law is Chinchilla's by Huber's objective of
    log losses; no other is preferred for having come closer.
    """
    known = [row for row in rows if not row["held_out"]]
    unseen = [row for row in rows if row["held_out"]]
    if not known:
        return Verdict("no run to fit is finished", (), None, None, (), ())
    columns = {name: [row[name] for row in known] for name in ("N", "D", "loss")}
    law = laws.get(STANDARD[0])
    table = tables.from_columns(
        columns, tuple(r["run"] for r in known), ("wsd",) * len(known), {"N": _convention(count)}
    )
    findings = tuple(diagnose(table, len(law.parameters), tuple(law.symbols)))
    try:
        refuse(findings)
        found = fit(law, table.columns, "huber", mask="runs that are not held out")
        draws, tested = bootstrap(found), backtest(found)
    except InputError as error:
        return Verdict(str(error), findings, None, None, (), ())
    profiles = [profile(found, name) for name in found.free]
    read = {"path": path, "units": {name: name for name in columns}, "where": "held_out==0"}
    read |= {"conventions": {"N": _convention(count)}}
    verdicts = []
    for row in unseen:
        said = forecast(found, {"N": row["N"], "D": row["D"]}, _LEVEL, draws=draws, tested=tested)
        verdicts.append(
            {name: row[name] for name in ("run", "N", "D", "loss", "standard_error", "flops")}
            | {"prediction": said.point, "lower": said.lower, "upper": said.upper}
            | {"plain": said.plain.point}
            | {"plain_lower": said.plain.lower, "plain_upper": said.plain.upper}
            | {"level": _LEVEL, "why": said.why, "warning": said.warning}
            | {"error": said.point / row["loss"] - 1}
            | {"inside": said.lower <= row["loss"] <= said.upper}
            | {"compute_ratio": row["flops"] / max(each["flops"] for each in known)}
        )
    beside = [_beside(name, objective, table, unseen) for name, objective in _BESIDE]
    stored = record.to_json(found, draws, profiles, findings, read, tested)
    return Verdict("", findings, found, stored, tuple(verdicts), tuple(beside))


def _beside(
    name: str, objective: Objective, table: tables.Table, unseen: Sequence[Row]
) -> dict[str, Any]:
    """What another law, or another objective, makes of the same rows."""
    law = laws.get(name)
    try:
        found = fit(law, table.columns, objective)
    except InputError as error:
        return {"law": name, "objective": objective, "why_not": str(error), "errors": []}
    at = {symbol: np.array([row[symbol] for row in unseen], float) for symbol in law.symbols}
    said = law.predict(found.parameters, at) if unseen else np.array([])
    observed = np.array([row["loss"] for row in unseen])
    return {
        "law": name,
        "objective": objective,
        "why_not": "",
        "errors": (said / observed - 1).tolist(),
        "parameters": dict(found.parameters),
    }


def _convention(count: str) -> str:
    return "total" if count == "parameters" else "non_embedding"

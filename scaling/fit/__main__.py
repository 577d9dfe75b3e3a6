"""Fit a scaling law to a table of runs.

    python -m scaling.fit --table=runs.csv --columns="N=n_params,D=tokens,loss=final_loss" \\
        --where="loss<3.4" --law=chinchilla --json=fit.json

The table is CSV, JSON lines, Parquet, an export of Weights & Biases, TensorBoard's event files, or
a folder of run directories. It is diagnosed first: what would make the answer wrong is refused, and
--accept=CODE takes responsibility for it. Intervals are from refits to resampled rows; they hold as
far as the law does. How far that is, a backtest within the table shows, which is kept for
scaling.predict.
"""

from typing import Any, cast

import numpy as np
from absl import flags

from configs.flags import main
from configs.schema import InputError
from scaling import laws, record, tables
from scaling.backtest import backtest
from scaling.diagnose import diagnose, fitted, refuse
from scaling.fit import Fit, Objective, Space, fit
from scaling.uncertainty import Bootstrap, bootstrap, profile

_TABLE = flags.DEFINE_string("table", None, "the table's file or folder")
_COLUMNS = flags.DEFINE_string(
    "columns", "", '"N=n_params,D=tokens*1e9,loss=final_loss,weight=w,run=name"; empty: by name'
)
_WHERE = flags.DEFINE_string("where", "", 'rows to keep, such as "loss<3.4 and N>=1e6"')
_LAW = flags.DEFINE_string("law", "chinchilla", "one of " + ", ".join(laws.LAWS))
_OBJECTIVE = flags.DEFINE_enum(
    "objective", "huber", ["huber", "lad", "squared"], "summed over rows"
)
_DELTA = flags.DEFINE_float("delta", 1e-3, "where Huber's objective becomes linear")
_SPACE = flags.DEFINE_enum("space", "log", ["log", "linear"], "residuals of log loss, or of loss")
_FIX = flags.DEFINE_string("fix", "", "parameters to hold, such as E=1.69")
_BOOTSTRAP = flags.DEFINE_integer("bootstrap", 1000, "resamples; 0: no intervals", lower_bound=0)
_BY_RUN = flags.DEFINE_bool("by_run", True, "resample runs, where the table names them")
_SEED = flags.DEFINE_integer("seed", 0, "of the resamples")
_ACCEPT = flags.DEFINE_list("accept", [], "codes of findings that are not to be refused")
_JSON = flags.DEFINE_string("json", "", "write all of it to this file")


def run() -> None:
    """The command."""
    if not _TABLE.value:
        raise InputError("no table: name one with --table=FILE")
    law = laws.get(_LAW.value)
    table = tables.read(_TABLE.value, _COLUMNS.value, _WHERE.value)
    for name in (*law.symbols, law.observed):
        table[name]  # says which column is missing
    findings = diagnose(table, len(law.parameters), tuple(law.symbols), accept=_ACCEPT.value)
    for finding in findings:
        print(f"{finding.severity}: {finding.sentence} [{finding.code}]")
    refuse(findings)
    weights = table.columns.get("weight")
    found = fit(
        law,
        {name: table[name] for name in (*law.symbols, law.observed)},
        cast(Objective, _OBJECTIVE.value),
        _DELTA.value,
        cast(Space, _SPACE.value),
        weights,
        record.places(_FIX.value, "fix"),
        mask=_WHERE.value or "all rows",
    )
    draws = None
    if _BOOTSTRAP.value:
        runs = np.array(table.runs)
        named = _BY_RUN.value and len(set(table.runs)) < len(table)
        draws = bootstrap(found, _BOOTSTRAP.value, runs if named else None, seed=_SEED.value)
    profiles = [profile(found, name) for name in found.free] if len(found.free) > 1 else []
    _print(found, draws)
    for each in profiles:
        if not each.identified:
            print(f"warn: {each.sentence}")
    tested = backtest(found)
    print(tested.sentence)
    parameters = {each.name: each for each in law.parameters if each.name in found.free}
    after = list(
        fitted(
            {name: found.parameters[name] for name in parameters},
            {name: each.lower for name, each in parameters.items()},
            {name: each.upper for name, each in parameters.items()},
        )
    )
    findings = [*findings, *after]
    for finding in after:
        print(f"{finding.severity}: {finding.sentence} [{finding.code}]")
    read: dict[str, Any] = {"path": table.path, "units": table.units, "where": _WHERE.value}
    read["conventions"] = dict(table.conventions)
    record.write(
        _JSON.value, "json", record.to_json(found, draws, profiles, findings, read, tested)
    )


def _print(found: Fit, draws: Bootstrap | None) -> None:
    print(f"\n{found.law.name}, {found.law.source}")
    print(f"{found.n} rows ({found.mask}); {found.loss} in {found.space} {found.law.observed}")
    for name, value in found.parameters.items():
        line = f"  {name:12}{value:14.6g}"
        if draws and name in draws.intervals:
            low, high = draws.intervals[name]
            line += f"   +- {draws.standard_errors[name]:.3g}, {draws.level:.0%}: "
            line += f"{low:.6g} to {high:.6g}"
        print(line)
    print(
        f"objective {found.objective:.10g}, projected gradient {found.gradient_norm:.1e}, ", end=""
    )
    print(f"{found.agreeing} of {found.starts} starts agree")
    for rival in found.minima[1:]:
        print(f"warn: a rival minimum with objective {rival.objective:.10g}: {rival.parameters}")
    for name, sentence in found.flags.items():
        if not name.endswith(" at bound"):  # diagnosis says more of these
            print(f"warn: {sentence} [{name}]")


if __name__ == "__main__":
    main(run)

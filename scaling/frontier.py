"""The best size of each budget, read off the runs: approaches 1 and 2 of Hoffmann et al. 2022.

    python -m scaling.frontier --table=runs.csv --columns="N=n_params,D=tokens,loss=final_loss"
    python -m scaling.frontier --table=curves.csv --method=envelope \\
        --columns="N=n_params,D=tokens,C=flops,loss=loss,run=name"

--method=akima (a spline) or parabola takes the ends of runs at a few budgets, with several sizes
each; envelope takes whole curves. Neither takes the loss to follow a law, and neither foretells the
loss: scaling.fit does.
"""

from collections.abc import Sequence
from typing import Any

from absl import flags

from configs.flags import main
from configs.schema import InputError
from scaling import isoflop, record, tables
from scaling.diagnose import diagnose, refuse
from scaling.envelope import envelope
from scaling.tables import Table

_TABLE = flags.DEFINE_string("table", None, "the table's file or folder")
_COLUMNS = flags.DEFINE_string("columns", "", "as in scaling.fit; empty: by name")
_WHERE = flags.DEFINE_string("where", "", 'rows to keep, such as "loss<3.4 and N>=1e6"')
_METHOD = flags.DEFINE_enum("method", "akima", ["akima", "parabola", "envelope"], "see above")
_NOISE = flags.DEFINE_float("noise", isoflop.SEED_NOISE, "nats by which seeds of one set-up differ")
_AT = flags.DEFINE_list("at", [], "budgets in operations to give the best size for")
_ACCEPT = flags.DEFINE_list("accept", [], "codes of findings that are not to be refused")
_JSON = flags.DEFINE_string("json", "", "write all of it to this file")


def run() -> None:
    """The command."""
    if not _TABLE.value:
        raise InputError("no table: name one with --table=FILE")
    try:
        places = [float(budget) for budget in _AT.value]
    except ValueError as error:
        raise InputError(f"--at={','.join(_AT.value)} holds what is no number: {error}") from error
    table = tables.read(_TABLE.value, _COLUMNS.value, _WHERE.value)
    for name in ("N", "loss"):
        table[name]  # says which column is missing
    if _METHOD.value == "envelope":
        values = by_envelope(table, places)
    else:
        findings = diagnose(table, 2, ("N",), accept=_ACCEPT.value)
        for finding in findings:
            print(f"{finding.severity}: {finding.sentence} [{finding.code}]")
        refuse(findings)
        values = by_budget(table, _METHOD.value, _NOISE.value, places)
    record.write(_JSON.value, "json", values)


def by_budget(table: Table, method: str, noise: float, places: Sequence[float]) -> dict[str, Any]:
    """Approach 2, printed, and as plain values."""
    found = isoflop.fit(table, "parabola" if method == "parabola" else "akima", noise)
    for m in found.minima:
        low, high = m.interval
        print(f"C = {m.C:.3g}: N = {m.N:.4g} ({low:.3g} to {high:.3g}), D = {m.D:.4g}, ", end="")
        print(f"loss {m.loss:.4f}")
    for m in found.left_out:
        print(f"left out: {m.why}")
    laws = {"N": found.N, "D": found.D}
    for name, law in laws.items():
        low, high = law.interval
        print(f"{name}* = {law.coefficient:.4g} C^{law.exponent:.4f} ({low:.4f} to {high:.4f})")
    return {
        "method": found.method,
        "minima": [
            {"C": m.C, "N": m.N, "interval": list(m.interval), "D": m.D, "loss": m.loss}
            for m in found.minima
        ],
        "left_out": [m.why for m in found.left_out],
        **{
            name: {
                "coefficient": law.coefficient,
                "exponent": law.exponent,
                "interval": list(law.interval),
            }
            for name, law in laws.items()
        },
        "at": [_place(C, {name: law(C) for name, law in laws.items()}) for C in places],
    }


def by_envelope(table: Table, places: Sequence[float]) -> dict[str, Any]:
    """Approach 1, printed, and as plain values."""
    found = envelope(table)
    for warning in found.warnings:
        print(f"warn: {warning}")
    print(f"{len(found.points)} budgets count, {found.left_out} do not")
    laws = {"N": found.N, "D": found.D}
    for name, law in laws.items():
        print(f"{name}* = {law.size:.4g} C^{law.exponent:.4f} +- {law.standard_error:.4f}")
    return {
        "method": "envelope",
        "left_out": found.left_out,
        "warnings": list(found.warnings),
        **{
            name: {
                "coefficient": law.size,
                "exponent": law.exponent,
                "standard_error": law.standard_error,
            }
            for name, law in laws.items()
        },
        "at": [_place(C, {name: (float(law(C)),) for name, law in laws.items()}) for C in places],
    }


def _place(C: float, values: dict[str, tuple[float, ...]]) -> dict[str, Any]:
    """The best N and D of a budget, printed: the value, and its interval where there is one."""
    words = []
    for name, (value, *ends) in values.items():
        words.append(
            f"{name} = {value:.4g}" + (f" ({ends[0]:.3g} to {ends[1]:.3g})" if ends else "")
        )
    print(f"at C = {C:.4g}: {', '.join(words)}")
    return {"C": C} | {name: list(each) for name, each in values.items()}


if __name__ == "__main__":
    main(run)

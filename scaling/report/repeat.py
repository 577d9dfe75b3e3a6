"""The command that made a fit."""

import shlex
from typing import Any


def command(report: dict[str, Any]) -> str:
    """python -m scaling.fit with its flags, in the form in which a shell takes it."""
    read, fit = report["read"], report["fit"]
    columns = ",".join(f"{name}={text}" for name, text in (read.get("units") or {}).items())
    flags = {
        "table": read.get("path", ""),
        "columns": columns,
        "where": read.get("where", ""),
        "law": report["law"],
        "objective": fit["loss"],
        "delta": f"{fit['delta']:g}" if fit["loss"] == "huber" else "",
        "space": fit["space"],
        "fix": ",".join(f"{name}={value:.10g}" for name, value in fit["fixed"].items()),
        "bootstrap": str(report["resamples"]),
        "json": "fit.json",
    }
    given = [f"--{name}={shlex.quote(text)}" for name, text in flags.items() if text]
    return " \\\n    ".join(["python -m scaling.fit", *given])

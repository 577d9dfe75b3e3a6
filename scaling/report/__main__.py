"""A fit as one interactive page of HTML, and as plots.

    python -m scaling.report --fit=fit.json --runs="runs/*" --out=report.html --plots=plots
    python -m scaling.report --ladder=runs/ladder --out=report.html

The page needs nothing else: no network, no other file. --runs draws the curves of run directories,
--table and --columns those of any table with several points a run. A ladder brings its fit, its
curves and what it predicted of the runs it held out.
"""

from pathlib import Path

from absl import flags

from configs.flags import main
from configs.schema import InputError, require
from scaling.report import collect, curves, ladders, page, plots

_FIT = flags.DEFINE_string("fit", None, "the file that scaling.fit wrote")
_LADDER = flags.DEFINE_string("ladder", "", "the folder of a ladder, which scaling.ladder wrote")
_OUT = flags.DEFINE_string("out", "report.html", "write the page to this file")
_PLOTS = flags.DEFINE_string("plots", "", "write the figures to this folder, as PNG and SVG")
_RUNS = flags.DEFINE_string("runs", "", 'run directories whose curves to draw, "runs/ladder/*"')
_TABLE = flags.DEFINE_string("table", "", "a table of points of runs, whose curves to draw")
_COLUMNS = flags.DEFINE_string(
    "columns", "", '"run=name,D=tokens,loss=train_loss,N=n_params", of --table; empty: by name'
)


def run() -> None:
    """The command."""
    folder, fit, runs = _LADDER.value, _FIT.value, _RUNS.value
    if not fit and not folder:
        raise InputError(
            "no fit: name one with --fit=FILE, which scaling.fit --json wrote, or a --ladder=FOLDER"
        )
    ladder = ladders.read(folder) if folder else None
    if ladder and not fit:
        require(not ladder["why_no_fit"], f"{folder} has no fit: {ladder['why_no_fit']}")
    if folder and not runs:
        runs = str(Path(folder) / "runs" / "*")
    lines = curves.of_runs(runs) if runs else []
    lines += curves.of_table(_TABLE.value, _COLUMNS.value) if _TABLE.value else []
    report = collect(fit or str(Path(folder) / "fit.json"), lines, ladder)
    out = Path(_OUT.value)
    try:
        out.write_text(page.page(report), encoding="utf-8")
    except OSError as error:
        raise InputError(f"--out={out}: {error.strerror}; choose another file") from error
    print(f"the report: {out}")
    if _PLOTS.value:
        names = plots.write(report, Path(_PLOTS.value))
        print(f"as PNG and SVG in {_PLOTS.value}: {', '.join(names)}")


if __name__ == "__main__":
    main(run)

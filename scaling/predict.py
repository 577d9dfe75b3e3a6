"""What one new run would give, by a fit of python -m scaling.fit.

    python -m scaling.predict --fit=fit.json --at="N=7e9,D=2e12" --json=prediction.json

The prediction averages over forms of the law, and is moved and its interval widened by what a
backtest within the fit's own table shows (scaling/calibration.py). The interval of the bootstrap,
which holds if the law does, stands beside it.
"""

from absl import flags

from configs.flags import main
from configs.schema import InputError
from scaling import record
from scaling.calibration import forecast

_FIT = flags.DEFINE_string("fit", None, "the file that scaling.fit wrote")
_AT = flags.DEFINE_string("at", None, 'where, such as "N=7e9,D=2e12"')
_LEVEL = flags.DEFINE_float("level", 0.95, "of the interval", lower_bound=0.0, upper_bound=1.0)
_JSON = flags.DEFINE_string("json", "", "write the prediction to this file")


def run() -> None:
    """The command."""
    if not _FIT.value:
        raise InputError("no fit: name one with --fit=FILE, which scaling.fit --json wrote")
    if not _AT.value:
        raise InputError('nowhere to predict: give a place, as in --at="N=7e9,D=2e12"')
    fit, draws = record.load(_FIT.value)
    at = record.places(_AT.value, "at")
    tested = record.load_backtest(_FIT.value)
    found = forecast(fit, at, _LEVEL.value, draws=draws, tested=tested)
    print(f"{fit.law.observed} at {_AT.value}: {found.point:.5g}, ", end="")
    print(f"{_LEVEL.value:.0%}: {found.lower:.5g} to {found.upper:.5g}\n{found.why}")
    print(f"if the law held: {found.plain.lower:.5g} to {found.plain.upper:.5g}")
    if found.warning:
        print(f"warn: {found.warning}")
    values = {
        "prediction": found.point,
        "lower": found.lower,
        "upper": found.upper,
        "why": found.why,
        "plain_lower": found.plain.lower,
        "plain_upper": found.plain.upper,
        "ratio": found.ratio,
        "backtested_ratio": found.backtested_ratio,
        "warning": found.warning,
        "at": at,
        "level": _LEVEL.value,
    }
    record.write(_JSON.value, "json", values)


if __name__ == "__main__":
    main(run)

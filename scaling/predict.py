"""What one new run would give, by a fit of python -m scaling.fit.

    python -m scaling.predict --fit=fit.json --at="N=7e9,D=2e12" --json=prediction.json

The interval joins what the rows leave open with the scatter around the law. It holds as far as the
law does: far beyond the rows every law so far was off by some percent.
"""

from absl import flags

from configs.flags import main
from configs.schema import InputError
from scaling import record
from scaling.uncertainty import predict

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
    found = predict(fit, at, draws, _LEVEL.value)
    print(f"{fit.law.observed} at {_AT.value}: {found.point:.5g}, ", end="")
    print(f"{_LEVEL.value:.0%}: {found.lower:.5g} to {found.upper:.5g}\n{found.why}")
    values = {"prediction": found.point, "lower": found.lower, "upper": found.upper}
    record.write(_JSON.value, "json", values | {"why": found.why, "at": at, "level": _LEVEL.value})


if __name__ == "__main__":
    main(run)

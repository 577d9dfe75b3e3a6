"""How a run will end, what more of it gains for its cost, and whether to go on.

    python -m scaling.monitor --workdir=runs/mine --price_per_hour=2.5
    python -m scaling.monitor --workdir=runs/mine --watch
    python -m scaling.monitor --table=curve.csv --columns="D=tokens,loss=val_loss" --tokens=1e10
    python -m scaling.monitor --table=curve.csv --tokens=1e10 --final_lr=3e-5 \\
        --columns="D=step*524288,step=step,loss=loss,lr=lr"

Works while the run goes on, from its files alone. Forecasts are tried out on the curve so far:
the interval is as wide as what they missed there. "stop" and "decay now" are said where, by the
forecast, nine chances in ten are that going on gains less than --min_gain.
"""

import dataclasses
import time
from typing import Any

from absl import flags

from configs.flags import main
from configs.schema import InputError, require
from scaling import record
from scaling.monitor.advice import Outlook, describe, outlook
from scaling.monitor.source import Watched, from_run, from_table

_WORKDIR = flags.DEFINE_string("workdir", "", "the directory of a run of python -m train")
_LOSS = flags.DEFINE_enum("loss", "auto", ["auto", "eval", "train"], "auto: eval where it suffices")
_TABLE = flags.DEFINE_string("table", "", "a curve of any other trainer: CSV, JSONL, Parquet ...")
_COLUMNS = flags.DEFINE_string("columns", "", 'such as "D=tokens,loss=val_loss[,step=..,lr=..]"')
_WHERE = flags.DEFINE_string("where", "", "rows of the table to take, such as \"run=='a'\"")
_TOKENS = flags.DEFINE_float("tokens", 0.0, "of the whole run; 0: what config.json says, or twice")
_FINAL_LR = flags.DEFINE_float("final_lr", None, "the table's rate goes there along a line")
_SPEED = flags.DEFINE_float("tokens_per_second", 0.0, "of all devices; 0: what the run measured")
_DEVICES = flags.DEFINE_integer("devices", 0, "that it runs on; 0: what run.json says")
_PRICE = flags.DEFINE_float("price_per_hour", 0.0, "of one device, in any money")
_MIN_GAIN = flags.DEFINE_float("min_gain", 0.003, "nats a token that are not worth having")
_LEVEL = flags.DEFINE_float("level", 0.95, "of the interval", lower_bound=0.0, upper_bound=1.0)
_WATCH = flags.DEFINE_boolean("watch", False, "look again until the run has ended")
_EVERY = flags.DEFINE_float("every", 30.0, "seconds between looks", lower_bound=0.1)
_JSON = flags.DEFINE_string("json", "", "write what was found to this file")


def run() -> None:
    """The command."""
    require(
        bool(_WORKDIR.value) != bool(_TABLE.value),
        "nothing to watch: give a run with --workdir=DIR, or a curve with --table=FILE",
    )
    require(
        not (_WATCH.value and _TABLE.value), "--watch looks at a run directory: give --workdir=DIR"
    )
    while True:
        try:
            watched = _look()
            found = outlook(watched, _PRICE.value, _MIN_GAIN.value, _LEVEL.value)
        except InputError as error:
            if not _WATCH.value:
                raise
            print(f"{error}")
        else:
            print(describe(watched, found, _PRICE.value))
            record.write(_JSON.value, "json", _values(watched, found))
            if not _WATCH.value or found.advice == "complete":
                return
        time.sleep(_EVERY.value)
        print()


def _look() -> Watched:
    """The run as it stands, with what the flags know better."""
    if _WORKDIR.value:
        watched = from_run(_WORKDIR.value, _LOSS.value)
    else:
        watched = from_table(
            _TABLE.value, _COLUMNS.value, _WHERE.value, _TOKENS.value, _FINAL_LR.value
        )
    return dataclasses.replace(
        watched,
        tokens=_TOKENS.value or watched.tokens,
        devices=_DEVICES.value or watched.devices,
        tokens_per_second=_SPEED.value or watched.tokens_per_second,
    )


def _values(watched: Watched, found: Outlook) -> dict[str, Any]:
    """What was found as plain values."""
    end = found.end
    return {
        "run": watched.curve.name,
        "loss": watched.kind,
        "tokens": float(watched.curve.tokens_n[-1]),
        "tokens_at_end": end.tokens,
        "now": end.now,
        "prediction": end.point,
        "lower": end.lower,
        "upper": end.upper,
        "level": end.level,
        "why_interval": end.why,
        "weights": dict(end.weights),
        "gain_per_million_tokens": found.per_token * 1e6,
        "gain_per_device_hour": found.per_device_hour,
        "gain_per_money": found.per_money,
        "gain_of_the_rest": end.now - end.point,
        "device_hours_left": found.device_hours,
        "money_left": found.money,
        "decayed_now": dataclasses.asdict(found.decayed) if found.decayed else None,
        "stayed": dataclasses.asdict(found.stayed) if found.stayed else None,
        "advice": found.advice,
        "why": found.why,
    }


if __name__ == "__main__":
    main(run)

"""Ending a run before its last update where its evaluations say so (scaling/stopping.py)."""

import math
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from configs.schema import Config, require
from parallel import agreement
from scaling.stopping import Evaluation, decide
from train.metrics import read_rows
from train.schedules import schedule


class EarlyEnd:
    """Watches the evaluations of a run.

    Process 0 decides for all. A run that goes on begins with the evaluations in its directory, and
    so decides as it would have without the interruption.

    Args:
        config: `early_stop` is acted on.
        path: metrics.jsonl; rows of later steps than `first` are left out.
        first: the step that the run begins or goes on at.
        validation: whether there is text to evaluate on.

    Raises:
        InputError: a limit is set, and there is no validation split.
    """

    def __init__(self, config: Config, path: Path, first: int, validation: bool):
        self._config = config
        self._on = config.early_stop.on
        self._path = path
        self._evaluations: list[Evaluation] = []
        self.reason = ""  # why the run ends; empty: it goes on
        require(
            validation or not self._on,
            "early_stop goes by the validation loss, and the corpus has no validation split: build "
            "it with one, or leave early_stop out",
        )
        if self._on:
            self.reason = agreement.first(lambda: self._look_back(first))

    def add(self, step: int, result: dict[str, Any]) -> None:
        """Note an evaluation, and decide. All processes call this."""
        if self._on:
            self._note(step, result)
            self.reason = agreement.first(self._decide)

    def _look_back(self, first: int) -> str:
        for row in read_rows(self._path):
            if row["kind"] == "eval" and row["step"] <= first:
                self._note(row["step"], row)
        return self._decide()

    def _note(self, step: int, row: dict[str, Any]) -> None:
        loss = math.nan if row["loss"] is None else row["loss"]
        error = row["standard_error"] or 0.0
        self._evaluations.append(Evaluation(step, self._tokens(step), loss, error))

    def _decide(self) -> str:
        config, limits = self._config, self._config.early_stop
        stop = decide(
            self._evaluations,
            target=limits.target,
            patience=limits.patience,
            min_gain=limits.min_gain,
            tokens=self._tokens(config.steps),
            eta_t=_rates(config) if limits.min_gain else None,
        )
        return stop.reason if stop else ""

    def _tokens(self, step: int) -> int:
        """Read up to a step."""
        return self._config.batch.windows_before(step) * self._config.model.context


def _rates(config: Config) -> np.ndarray:
    """The learning rate of every update."""
    return np.asarray(jax.vmap(schedule(config))(jnp.arange(config.steps)))

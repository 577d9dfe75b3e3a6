"""The published data sets, as tables with the masks that their papers used."""

import csv
import json
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest

Table = Mapping[str, np.ndarray]


def _read(path: Path, **columns: str) -> dict[str, np.ndarray]:
    """Columns of a CSV file, renamed, as floats where they are numbers."""
    with path.open() as lines:
        rows = list(csv.DictReader(lines))
    table = {name: np.array([row[column] for row in rows]) for name, column in columns.items()}
    return {
        name: column if column[0][:1].isalpha() else column.astype(float)
        for name, column in table.items()
    }


def _keep(table: Table, rows: np.ndarray) -> dict[str, np.ndarray]:
    return {name: column[rows] for name, column in table.items()}


@pytest.fixture(scope="session")
def anchors(shared_data) -> dict[str, dict]:
    """What a correct fit must give, by the check's id."""
    checks = json.loads((shared_data / "scaling" / "anchors.json").read_text())
    return {check["id"]: check for check in checks}


@pytest.fixture(scope="session")
def epoch(shared_data) -> Callable[[str], Table]:
    """The digitised Chinchilla runs under a mask: 'all', '240' or '217'; N, D, loss."""
    table = _read(
        shared_data / "scaling" / "epoch-chinchilla" / "svg_extracted_data.csv",
        N="Model Size",
        C="Training FLOP",
        loss="loss",
    )
    table["D"] = table["C"] / (6 * table["N"])
    masks = {
        "all": table["loss"] > 0,
        "240": table["loss"] < np.sort(table["loss"])[-5],
        "217": (table["C"] < 1e21) & (table["loss"] < 3.44),
    }
    return lambda mask: _keep(table, masks[mask])


@pytest.fixture(scope="session")
def gemstones(shared_data) -> Table:
    """22 shapes x 10 points of the 'hot' runs: N, D, width, depth, loss."""
    path = shared_data / "scaling" / "gemstones" / "wandb_df_for_fitting_hot.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    names = {
        "N": "params_active_precise",
        "D": "tokens",
        "width": "width",
        "depth": "depth",
        "loss": "final_loss",
    }
    return {name: np.array([float(row[key]) for row in rows]) for name, key in names.items()}


@pytest.fixture(scope="session")
def gadre(shared_data) -> Table:
    """RedPajama models: N, D, ratio (D / N), C4 loss, error of 17 tasks."""
    return _read(
        shared_data / "scaling" / "gadre2024" / "runs.csv",
        N="N",
        D="D",
        ratio="tok_mult",
        loss="loss_c4_val",
        error="err_avg17",
    )


@pytest.fixture(scope="session")
def steps_to_target(shared_data) -> Table:
    """Updates to a target loss: model size in millions, batch in sequences, S."""
    return _read(
        shared_data / "scaling" / "critical-batch-size" / "steps_to_target.csv",
        millions="params_M",
        batch="batch_size_seqs",
        S="steps_to_target",
    )


@pytest.fixture(scope="session")
def routed(shared_data) -> Callable[[str], Table]:
    """One kind of router with the dense models, at routing frequency .5, k 1, seed 42."""
    table = _read(
        shared_data / "scaling" / "deepmind-routing" / "final_step.csv",
        N="dense_parameter_count",
        experts="num_experts",
        loss="loss_validation",
        kind="router_type",
        frequency="routing_frequency",
        k="k",
        seed="seed",
    )
    same = (table["frequency"] == 0.5) & (table["k"] == 1) & (table["seed"] == 42)
    return lambda kind: _keep(table, same & np.isin(table["kind"], [kind, "Dense"]))

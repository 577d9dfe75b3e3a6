import gzip
import json
import math
import struct

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tensorboardX import SummaryWriter
from tensorboardX.proto.event_pb2 import Event

from configs.schema import InputError
from scaling.tables import from_columns, read

CSV = """name,n_params,tokens,final_loss,Training FLOP
a,20M,4e8,3.9,4.8e16
b,1.4B,28e9,2.6,2.352e20
c,70000000,1400000000,3.2,5.88e17
"""
COLUMNS = "N=n_params,D=tokens,loss=final_loss,C=Training FLOP,run=name"


@pytest.fixture
def runs(tmp_path):
    path = tmp_path / "runs.csv"
    path.write_text(CSV)
    return str(path)


def test_columns_are_mapped_and_suffixes_understood(runs):
    table = read(runs, COLUMNS)
    assert table["N"].tolist() == [20e6, 1.4e9, 70e6]
    assert table["C"].tolist() == [4.8e16, 2.352e20, 5.88e17]
    assert table.runs == ("a", "b", "c")
    assert table.rows.tolist() == [1, 2, 3]
    assert table.units["C"] == "Training FLOP"


def test_units_are_stated_in_the_mapping_and_nowhere_else(runs):
    table = read(runs, "N=n_params,loss=final_loss*bits,D=`Training FLOP`/(6*N),k=-log10(n_params)")
    np.testing.assert_allclose(table["loss"], np.array([3.9, 2.6, 3.2]) * math.log(2))
    np.testing.assert_allclose(table["D"], [4e8, 28e9, 1.4e9])
    np.testing.assert_allclose(table["k"][0], -math.log10(20e6))


@pytest.mark.parametrize(
    ("where", "rows"),
    [
        ("loss<3.4 and N>=1e6", [2, 3]),
        ("loss<3.4 or N<50M", [1, 2, 3]),
        ("not loss<3.4", [1]),
        ("2.7 < loss < 3.5", [3]),
        ('name=="c"', [3]),
        ('name!="c" and N>1B', [2]),
        ("D/N == 20", [1, 2, 3]),
        ("`Training FLOP`<1e18", [1, 3]),
        ("tokens*2 > 1e9", [2, 3]),
    ],
)
def test_where_keeps_the_rows_it_is_true_for(runs, where, rows):
    assert read(runs, COLUMNS, where).rows.tolist() == rows


@pytest.mark.parametrize(
    ("columns", "where", "says"),
    [
        ("N=n_parms,loss=final_loss", "", r"no column n_parms \(did you mean n_params\?\), only"),
        ("N=Training FLOPS,loss=final_loss", "", "did you mean Training FLOP"),
        ("N=n_params,loss", "", "'loss' must be NAME=COLUMN"),
        ("N=n_params,N=tokens", "", "each name once"),
        ("N=__import__('os').getpid()", "", "is not understood"),
        ("N=name", "", "row 1: name is no number: 'a'"),
        (COLUMNS, "loss<1 and N>1e6", "'loss < 1' keeps 0 of 3"),
        (COLUMNS, "N<30M and loss<3", "keeps 1 of 3, 'loss < 3' keeps 1 of 3, but none are in all"),
        (COLUMNS, "loss<3 & N>1", "is not understood"),
        (COLUMNS, "name=a", "is no expression"),
        (COLUMNS, "loss*2", "is no condition"),
        (COLUMNS, "open('x')", "is not understood"),
    ],
)
def test_what_is_wrong_is_said(runs, columns, where, says):
    with pytest.raises(InputError, match=says):
        read(runs, columns, where)


@pytest.mark.parametrize(
    ("cell", "says"),
    [
        ("nan", "rows 2, 4: loss is NaN or missing"),
        ("", "rows 2, 4: loss is NaN or missing"),
        ("inf", "rows 2, 4: loss is infinite"),
        ("three", "row 2: loss is no number: 'three'"),
    ],
)
def test_a_loss_that_is_none_is_named_unless_it_is_left_out(tmp_path, cell, says):
    path = tmp_path / "runs.csv"
    path.write_text(f"N,loss\n1e6,3\n2e6,{cell}\n3e6,2.9\n4e6,{cell}\n")
    with pytest.raises(InputError, match=says):
        read(str(path))
    assert read(str(path), where="finite(loss)").rows.tolist() == [1, 3]


def test_sizes_must_be_positive(tmp_path):
    path = tmp_path / "runs.csv"
    path.write_text("N,loss,weight\n1e6,3,0\n-2,4,-1\n")
    with pytest.raises(InputError, match="row 2: N is -2, and must be positive"):
        read(str(path), "N=N,loss=loss")
    with pytest.raises(InputError, match="row 2: weight is -1, and must not be negative"):
        read(str(path), "loss=loss,weight=weight")


def test_a_name_means_the_source_in_columns_and_the_mapped_in_where(tmp_path):
    path = tmp_path / "runs.jsonl"
    path.write_text('{"N": 5, "loss": 3}\n{"N": 7, "loss": 2, "late": 1.5}\n')
    table = read(str(path), "N=N*1e6,n=N+1,late=late,loss=loss", "N>=7e6")
    assert (table["N"].tolist(), table["n"].tolist(), table.rows.tolist()) == ([7e6], [8], [2])
    assert table["late"].tolist() == [1.5]
    assert read(str(path), "late=late", "finite(late)").rows.tolist() == [2]


def test_mixed_units_in_a_column_are_refused(tmp_path):
    path = tmp_path / "runs.csv"
    path.write_text("N,loss\n1.4B,3\n7,4\n")
    with pytest.raises(InputError, match=r"N mixes units: 1.4B in row 1 and 7 in row 2"):
        read(str(path))


def test_a_constant_that_is_a_column_too_is_refused(tmp_path):
    path = tmp_path / "runs.csv"
    path.write_text("bits,loss\n4,3\n")
    assert read(str(path), "loss=bits")["loss"].tolist() == [4]
    with pytest.raises(InputError, match="rename the column"):
        read(str(path), "loss=loss*bits")


def test_all_formats_give_the_same_table(runs, tmp_path):
    records = [
        {"name": "a", "n_params": 20e6, "tokens": 4e8, "final_loss": 3.9, "Training FLOP": 4.8e16},
        {
            "name": "b",
            "n_params": 1.4e9,
            "tokens": 28e9,
            "final_loss": 2.6,
            "Training FLOP": 2.352e20,
        },
        {
            "name": "c",
            "n_params": 7e7,
            "tokens": 1.4e9,
            "final_loss": 3.2,
            "Training FLOP": 5.88e17,
        },
    ]
    columns = {key: [record[key] for record in records] for key in records[0]}
    (tmp_path / "runs.jsonl").write_text("\n".join(map(json.dumps, records)))
    (tmp_path / "list.json").write_text(json.dumps(records))
    (tmp_path / "columns.json").write_text(json.dumps(columns))
    (tmp_path / "runs.csv.gz").write_bytes(gzip.compress(CSV.encode()))
    (tmp_path / "runs.tsv").write_text(CSV.replace(",", "\t"))
    pq.write_table(pa.table(columns), tmp_path / "runs.parquet")
    expected = read(runs, COLUMNS)
    for name in (
        "runs.jsonl",
        "list.json",
        "columns.json",
        "runs.csv.gz",
        "runs.tsv",
        "runs.parquet",
    ):
        table = read(str(tmp_path / name), COLUMNS)
        assert table.runs == expected.runs
        for key, values in expected.columns.items():
            np.testing.assert_array_equal(table[key], values)


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.csv", b"N,loss\n1,2,3\n", "row 1 has 3 cells and the header 2"),
        ("a.csv", b"N,N\n1,2\n", "names a column twice"),
        ("a.csv", b"", "no rows"),
        ("a.csv", b"N,loss\n\xff\xfe,3\n", "cannot be read"),
        ("a.csv.gz", b"N,loss\n1,3\n", "cannot be read"),
        ("a.json", b"{", "no JSON"),
        ("a.jsonl", b"3\n", "row 1 is no JSON object"),
        ("a.parquet", b"PAR", "cannot be read as Parquet"),
        ("a.xlsx", b"", "a table ends in"),
    ],
)
def test_damaged_files_are_named(tmp_path, name, content, says):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=says):
        read(str(tmp_path / name), "N=N,loss=loss")
    with pytest.raises(InputError, match="no such file"):
        read(str(tmp_path / "absent.csv"), "N=N,loss=loss")


def test_exports_of_wandb(tmp_path):
    nested = [
        {"name": "a", "summary": {"loss": 3.1, "_step": 10}, "config": {"n": {"value": 5e6}}},
        {"name": "b", "summary": {"loss": 2.9, "_step": 20}, "config": {"n": {"value": 9e6}}},
    ]
    path = tmp_path / "runs.jsonl"
    path.write_text("\n".join(map(json.dumps, nested)))
    table = read(str(path), "N=config.n,loss=summary.loss,step=summary._step,run=name")
    assert (table["N"].tolist(), table["step"].tolist()) == ([5e6, 9e6], [10, 20])
    spelt = tmp_path / "project.csv"
    spelt.write_text("name,summary\na,\"{'loss': 3.1, 'note': None}\"\n")
    assert read(str(spelt), "loss=summary.loss")["loss"].tolist() == [3.1]
    chart = tmp_path / "chart.csv"
    chart.write_text(
        '"Step","big - loss","big - loss__MIN","big - loss__MAX","small - loss"\n'
        "1,5,4,6,7\n2,4,3,5,\n"
    )
    table = read(str(chart), "D=Step*1e6,loss=loss,run=run")
    assert list(zip(table.runs, table["D"], table["loss"], strict=True)) == [
        ("big", 1e6, 5),
        ("small", 1e6, 7),
        ("big", 2e6, 4),
    ]


def test_event_files_of_tensorboard(tmp_path):
    for run, start in (("a", 5.0), ("b", 4.0)):
        with SummaryWriter(str(tmp_path / run)) as writer:
            for step in (1, 2, 3):
                writer.add_scalar("eval/loss", start - step / 10, step)
                writer.add_scalar("tokens", 1e6 * step, step)
                writer.add_scalar("lr", 0.0, step)
    assert read(str(tmp_path), "lr=lr")["lr"].tolist() == [0] * 6
    table = read(str(tmp_path), "D=tokens,loss=eval/loss,run=file")
    assert table.runs == ("a",) * 3 + ("b",) * 3
    np.testing.assert_allclose(table["loss"], [4.9, 4.8, 4.7, 3.9, 3.8, 3.7], rtol=1e-6)
    assert table["D"].tolist() == [1e6, 2e6, 3e6] * 2
    ends = read(str(tmp_path), "D=tokens,loss=eval/loss,run=file", last=True)
    assert ends.rows.tolist() == [3, 3]
    file = next((tmp_path / "a").iterdir())
    file.write_bytes(file.read_bytes()[:-5])  # as in a run that is going on
    assert len(read(str(file), "loss=eval/loss", "finite(loss)")) == 3


@pytest.mark.parametrize("form", ["float_val", "double_val", "tensor_content"])
def test_event_files_with_tensors_for_scalars(tmp_path, form):
    """As TensorFlow 2 and tf.summary write them."""
    event = Event(step=7)
    value = event.summary.value.add(tag="loss")
    value.metadata.plugin_data.plugin_name = "scalars"
    if form == "tensor_content":
        value.tensor.tensor_content = np.float32(2.5).tobytes()
    else:
        getattr(value.tensor, form).append(2.5)
    event.summary.value.add(tag="image").image.height = 3
    data = event.SerializeToString()
    path = tmp_path / "events.out.tfevents.1.host"
    path.write_bytes(struct.pack("<QI", len(data), 0) + data + bytes(4))
    table = read(str(path), "D=step,loss=loss")
    assert (table["D"].tolist(), table["loss"].tolist()) == ([7], [2.5])
    path.write_bytes(struct.pack("<QI", 4, 0) + b"\xff" * 4 + bytes(4))
    with pytest.raises(InputError, match="damaged at byte 0"):
        read(str(path), "loss=loss")


@pytest.fixture
def directory(tmp_path):
    config = {
        "model": {"layers": 2, "width": 8, "context": 16},
        "batch": {"size": 4},
        "schedule": {"kind": "cosine", "warmup": 3},
    }
    for name, size in (("small", 100), ("large", 900)):
        place = tmp_path / name
        place.mkdir()
        counts = {"total": size, "non_embedding": size - 50, "active": size}
        (place / "run.json").write_text(
            json.dumps({"format": 1, "parameters": counts, "flops_per_token": {"6n": 6 * size}})
        )
        (place / "config.json").write_text(json.dumps(config))
        rows = [
            {
                "kind": kind,
                "step": s,
                "tokens": 64 * s,
                "flops": 384 * s * size,
                "loss": 5 - s / 10 + (kind == "train"),
            }
            for s in (10, 20)
            for kind in ("train", "eval")
        ]
        (place / "metrics.jsonl").write_text("\n".join(map(json.dumps, rows)) + '\n{"kind": "ev')
    return tmp_path


def test_run_directories_give_a_row_a_run(directory):
    table = read(str(directory))
    assert table.runs == ("large", "small")
    assert table["N"].tolist() == [900, 100]
    assert table["D"].tolist() == [1280, 1280]
    assert table["loss"].tolist() == [3, 3]
    assert table["warmup"].tolist() == [3 * 64] * 2
    assert table.schedules == ("cosine", "cosine")
    assert table.conventions["N"] == "total"


def test_run_directories_give_a_row_an_evaluation_when_asked(directory):
    table = read(str(directory), "N=parameters.non_embedding,D=tokens,loss=loss", last=False)
    assert table["N"].tolist() == [850, 850, 50, 50]
    assert table["D"].tolist() == [640, 1280] * 2
    assert len(read(str(directory / "small"))) == 1


def test_a_run_directory_without_its_record_is_refused(directory):
    (directory / "small" / "run.json").unlink()
    with pytest.raises(InputError, match=r"small: no run directory: there is no run.json"):
        read(str(directory))


def test_tables_of_arrays():
    table = from_columns({"N": [1e6, 2e6], "loss": [3, 2.9]})
    assert table.take(table["N"] > 1.5e6).rows.tolist() == [2]
    with pytest.raises(InputError, match="no column D was mapped, only N, loss"):
        table["D"]
    with pytest.raises(InputError, match="different lengths"):
        from_columns({"N": [1], "loss": [3, 2]})


def test_published_tables_are_read(shared_data):
    folder = shared_data / "scaling"
    path = str(folder / "epoch-chinchilla" / "svg_extracted_data.csv")
    columns = "N=Model Size,C=Training FLOP,D=C/(6*N),loss=loss"
    assert len(read(path, columns)) == 245
    assert len(read(path, columns, "C<1e21 and loss<3.44")) == 217
    curves = str(folder / "deepmind-routing" / "curves.csv.gz")
    with pytest.raises(InputError, match=r"2154.*loss is NaN or missing"):
        read(curves, "N=dense_parameter_count,loss=loss_validation")
    gemstones = str(folder / "gemstones" / "wandb_df_for_fitting_hot.jsonl")
    mapping = "N=params_active_precise,D=tokens,loss=final_loss,run=run_name"
    assert len(read(gemstones, mapping)) == 220
    assert len(read(gemstones, mapping, last=True)) == 22
    files = read(str(folder / "multipowerlaw" / "csv_25"), "D=step,loss=loss,run=file")
    assert len(set(files.runs)) == 9

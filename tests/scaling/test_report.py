"""The report as a reader of HTML sees it: whole, complete, and inert."""

import base64
import hashlib
import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from configs.schema import InputError
from scaling import laws, record
from scaling.fit import fit
from scaling.report import collect, curves, figures, ladders, page, plots, words
from scaling.suspects import Finding
from scaling.uncertainty import bootstrap, profile

REPOSITORY = Path(__file__).resolve().parents[2]
TRUE = {"E": 1.7, "A": 400.0, "B": 1500.0, "alpha": 0.34, "beta": 0.36}
EVIL = '</script><script>document.title="taken"</script><img src=x onerror=alert(1)>'
FINDINGS = (
    Finding("wide_grid", "warn", (1, 2), "rows 1, 2: the grid is wide & <i>off</i>"),
    Finding("flops_6nd", "note", (), "C is 6 N D throughout"),
)
VOID = {"meta", "link", "input", "img", "br"}


BUDGETS, FACTORS = 10.0 ** np.arange(18, 21.1, 0.5), 2.0 ** np.arange(-3, 4)


def isoflop_table(budgets=BUDGETS, factors=FACTORS):
    """Runs on isoFLOP curves around the best sizes, by Chinchilla's law with .2 % scatter."""
    G = (0.34 * 400 / (0.36 * 1500)) ** (1 / 0.7)
    N = (G * (budgets[:, None] / 6) ** (0.36 / 0.7) * factors).ravel()
    D = np.repeat(budgets, len(factors)) / 6 / N
    noise = np.exp(0.002 * np.random.default_rng(0).standard_normal(len(N)))
    return {"N": N, "D": D, "loss": laws.CHINCHILLA.predict(TRUE, {"N": N, "D": D}) * noise}


def write_fit(file, law=laws.CHINCHILLA, table=None, findings=FINDINGS, draws=50, **read):
    found = fit(law, table or isoflop_table(), mask=read.get("where") or "all rows")
    resamples = bootstrap(found, draws) if draws else None
    profiles = [profile(found, name) for name in found.free[:1]]
    read = {"path": "runs.csv", "units": {"N": "n"}, "where": "", "conventions": {}} | read
    file.write_text(json.dumps(record.to_json(found, resamples, profiles, findings, read)))
    return str(file)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The fit of a table whose texts try to be HTML, and its curves."""
    folder = tmp_path_factory.mktemp("report")
    write_fit(
        folder / "fit.json", path=EVIL, where=EVIL, units={"N": EVIL}, conventions={"N": EVIL}
    )
    return folder


@pytest.fixture(scope="module")
def report(folder):
    curve = {"run": EVIL, "N": 1e7, "tokens": [1e6, 2e6], "flops": [6e13, 12e13], "loss": [5, 4]}
    curve["evaluations"] = {"tokens": [2e6], "flops": [12e13], "loss": [4.1]}
    return collect(str(folder / "fit.json"), [curve])


@pytest.fixture(scope="module")
def text(report):
    return page.page(report)


@pytest.fixture
def quick(monkeypatch):
    """Forecasts that cost nothing, for what does not look at them."""

    def forecasts(fit, places, level, **_):
        points = [float(fit.law.predict(fit.parameters, at)) for at in places]
        return [
            SimpleNamespace(point=p, lower=0.9 * p, upper=1.1 * p, why="so", backtested_ratio=5.0)
            for p in points
        ]

    monkeypatch.setattr(figures, "forecasts", forecasts)


class Reader(HTMLParser):
    """Elements, in order, with what is said between them; stops where one is closed out of turn."""

    def __init__(self, text):
        super().__init__()
        self.open, self.elements, self.said, self.scripts = [], [], "", []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open[-1:] == ["script"]:
            self.scripts[-1] += data
        elif self.open[-1:] != ["style"]:
            self.said += data


def test_the_page_is_whole_and_its_links_lead_somewhere(text):
    read = Reader(text)
    assert read.open == []
    ids = [attributes["id"] for _, attributes in read.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    links = [attributes["href"] for tag, attributes in read.elements if tag == "a"]
    assert links
    assert {link.removeprefix("#") for link in links} <= set(ids)


def test_the_page_asks_for_nothing_from_elsewhere(text):
    for tag, attributes in Reader(text).elements:
        assert "src" not in attributes, tag
        assert attributes.get("href", "#").startswith(("#", "data:,"))
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)|@import|url\((?!#)|fetch\(", text)


def test_what_a_table_says_is_never_run(text, report):
    read = Reader(text)
    assert len(read.scripts) == 2  # the data, and our own
    tags = {tag for tag, _ in read.elements}
    assert "img" not in tags
    assert not any(name.startswith("on") for _, given in read.elements for name in given)
    assert EVIL in read.said
    assert json.loads(read.scripts[0]) == json.loads(json.dumps(report))
    assert "<" not in read.scripts[0]


def test_the_policy_lets_run_what_is_there_and_nothing_else(text):
    read = Reader(text)
    policy = next(a["content"] for t, a in read.elements if a.get("http-equiv"))
    digest = base64.b64encode(hashlib.sha256(read.scripts[1].encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy


def test_every_finding_and_parameter_is_there_in_words(text, report):
    said = Reader(text).said
    for finding in report["findings"]:
        assert finding["sentence"] in said
        assert finding["code"] in said
    for parameter in report["parameters"]:
        assert parameter["what"] in said
    assert report["source"] in said
    assert f"{report['fit']['n']} rows" in said
    assert report["backtest"]["sentence"].removeprefix("backtest") in said


def test_what_is_wrong_with_a_fit_is_said(tmp_path, quick):
    path = tmp_path / "fit.json"
    write_fit(path, draws=0)
    values = json.loads(path.read_text())
    values["flags"] = {"E at bound": "E = 0 lies at the end of its range"}
    values["identified"]["E"] = "E is not identified from below: every value fits"
    path.write_text(json.dumps(values))
    said = Reader(page.page(collect(str(path)))).said
    assert "E = 0 lies at the end of its range [E at bound]" in said
    assert "E is not identified from below: every value fits" in said
    assert "determine every parameter" not in said


def test_figures_show_what_the_law_says(report):
    law, parameters = laws.CHINCHILLA, {p["name"]: p["value"] for p in report["parameters"]}
    rows = report["rows"]
    columns = {name: np.array(values) for name, values in rows["columns"].items()}
    np.testing.assert_allclose(rows["predicted"], law.predict(parameters, columns), rtol=1e-5)
    above = np.log(columns["loss"] / np.array(rows["predicted"]))
    np.testing.assert_allclose(rows["residual"], above, atol=1e-5)
    for line in report["lines"]["lines"]:
        at = {"N": line["value"], "D": np.array(line["x"])}
        np.testing.assert_allclose(line["y"], law.predict(parameters, at), rtol=1e-4)
        assert np.all(np.array(line["low"]) <= np.array(line["high"]))


def test_minima_and_frontier_are_where_they_belong(report):
    p = {each["name"]: each["value"] for each in report["parameters"]}
    G = (p["alpha"] * p["A"] / (p["beta"] * p["B"])) ** (1 / (p["alpha"] + p["beta"]))
    found = report["frontier"]
    best = G * (np.array(found["C"]) / 6) ** (p["beta"] / (p["alpha"] + p["beta"]))
    np.testing.assert_allclose(found["N"], best, rtol=1e-5)  # Hoffmann et al. 2022, equation 4
    assert np.all((np.array(found["N_low"]) < best) & (best < np.array(found["N_high"])))
    assert found["rows"] == pytest.approx([1e18, 1e21])
    low, point, high = (np.array(found[name]) for name in ("lower", "point", "upper"))
    assert np.all((low < point) & (point < high))
    assert np.log(high / low)[-1] > 2 * np.log(high / low)[30]
    assert [each["above"] for each in found["warnings"]] == sorted(
        (each["above"] for each in found["warnings"]), reverse=True
    )
    budgets = report["isoflop"]["budgets"]
    assert [b["C"] for b in budgets] == pytest.approx(BUDGETS, rel=1e-4)
    for budget in budgets:
        at = np.argmin(budget["curve"]["loss"])
        assert budget["curve"]["N"][at] == pytest.approx(budget["minimum"]["N"], rel=0.1)
    exponent = report["isoflop"]["powers"]["N"]["exponent"]
    assert exponent == pytest.approx(0.36 / 0.7, abs=0.02)


def test_rows_without_budgets_have_no_isoflop_curves(tmp_path, quick):
    rng = np.random.default_rng(1)
    N, D = 10 ** rng.uniform(7, 9, 60), 10 ** rng.uniform(9, 11, 60)
    noise = np.exp(0.002 * rng.standard_normal(60))
    table = {"N": N, "D": D, "loss": laws.CHINCHILLA.predict(TRUE, {"N": N, "D": D}) * noise}
    found = collect(write_fit(tmp_path / "fit.json", table=table))
    assert found["isoflop"] is None
    assert "plot-isoflop" not in page.page(found).partition("<script>")[0]


def test_a_law_of_one_column_has_a_line_and_no_budget_to_divide(tmp_path):
    C = 10.0 ** np.linspace(17, 21, 12)
    loss = (1e8 / C) ** 0.05 * np.exp(0.001 * np.random.default_rng(2).standard_normal(12))
    found = collect(write_fit(tmp_path / "fit.json", laws.KAPLAN_C, {"C": C, "loss": loss}))
    assert len(found["lines"]["lines"]) == 1
    assert (found["frontier"], found["isoflop"]) == (None, None)
    body = Reader(page.page(found))
    assert "budget" not in [a.get("id") for _, a in body.elements]


def test_a_thousand_rows_and_a_hundred_curves_stay_below_a_megabyte(tmp_path, quick):
    table = isoflop_table(10.0 ** np.linspace(17, 22, 50), 2.0 ** np.linspace(-3, 3, 20))
    path = write_fit(tmp_path / "fit.json", table=table, draws=20)
    rows = [
        {"run": f"r{i}", "D": 1e6 * k, "loss": 3 + 1 / k} for i in range(150) for k in range(1, 99)
    ]
    (tmp_path / "curves.jsonl").write_text("\n".join(map(json.dumps, rows)))
    drawn = curves.of_table(str(tmp_path / "curves.jsonl"), "")
    assert len(drawn) == 100
    text = page.page(collect(path, drawn))
    assert len(text) < 1e6


def run_directory(folder, name, losses, size=1e6):
    place = folder / name
    place.mkdir()
    (place / "run.json").write_text(json.dumps({"parameters": {"total": size}}))
    rows = [
        {"kind": "train", "step": i, "tokens": 100 * i, "flops": 6e8 * i, "loss": loss}
        for i, loss in enumerate(losses, start=1)
    ]
    rows.append({"kind": "eval", "tokens": 100, "flops": 6e8, "loss": 4.5})
    rows.append({"kind": "event", "event": "finished", "tokens": 100, "flops": 6e8})
    (place / "metrics.jsonl").write_text("\n".join(map(json.dumps, rows)) + '\n{"kind": "tr')
    return place


def test_curves_are_means_of_stretches_and_skip_what_is_no_number(tmp_path):
    steps = np.arange(1, 5001)
    run_directory(tmp_path, "long", 3 + 1 / steps + (-1.0) ** steps)
    run_directory(tmp_path, "broken", [5, None, 4, float("nan"), 3])
    broken, long = curves.of_runs(str(tmp_path / "*"))
    assert (broken["loss"], broken["tokens"]) == ([5, 4, 3], [100, 300, 500])
    assert broken["evaluations"] == {"tokens": [100], "flops": [6e8], "loss": [4.5]}
    assert 50 < len(long["loss"]) <= 150
    assert 0.95 * 5e5 < long["tokens"][-1] < 5e5
    np.testing.assert_allclose(long["loss"][-20:], 3, atol=0.02)
    assert long["N"] == 1e6


def test_plots_are_the_same_each_time_and_not_blank(tmp_path, report):
    from matplotlib import image

    drawn = plots.write(report, tmp_path / "1")
    assert set(drawn) == set(plots.FIGURES) - {"ladder"}  # which the report has none of
    again = plots.write(report, tmp_path / "2", ("isoflop", "losses"))
    for name in again:
        for kind in ("png", "svg"):
            one, two = (tmp_path / n / f"{name}.{kind}" for n in "12")
            assert one.read_bytes() == two.read_bytes()
    for name in drawn:
        pixels = image.imread(tmp_path / "1" / f"{name}.png")
        assert len(np.unique(pixels[..., :3] @ [1, 10, 100])) > 50  # colors, nearly


def held_out(run, predicted, observed, half):
    ends = {"lower": predicted - half, "upper": predicted + half}
    plain = {f"plain_{name}": value for name, value in ends.items()}
    error = {"error": predicted / observed - 1, "inside": abs(predicted - observed) <= half}
    sizes = {"run": run, "N": 1e8, "D": 2e9, "loss": observed, "standard_error": 0.01}
    said = {"prediction": predicted, "level": 0.95, "why": "", "warning": "", "compute_ratio": 4.0}
    return sizes | said | ends | plain | error


def test_a_ladder_says_what_came_true(tmp_path, report):
    runs = [held_out(EVIL, 3.0, 3.01, 0.05), held_out("second", 3.0, 3.3, 0.05)]
    beside = [{"law": "kaplan_ND", "objective": "huber", "why_not": "", "errors": [0.02, -0.01]}]
    values = {"format": 1, "runs": [{}] * 9, "left_out": {"4x32": "it diverged"}}
    values |= {"held_out": runs, "beside": beside, "fit": None, "why_no_fit": "too few runs"}
    (tmp_path / "ladder.json").write_text(json.dumps(values))
    found = report | {"ladder": ladders.read(str(tmp_path))}
    said = Reader(page.page(found)).said
    assert "2 larger that it had not seen: 1 came out inside" in said
    for text in (
        EVIL,
        "3.0100 ± 0.0100",
        "2.9500 to 3.0500",
        "-0.33 %yes",
        "-9.09 %no",
        "kaplan_ND by huber: +2.00",
    ):
        assert text in said, text
    assert "4x32 is left out: it diverged" in said
    assert plots.write(found, tmp_path, ("ladder",)) == ["ladder"]
    done = command(f"--ladder={tmp_path}", f"--out={tmp_path / 'out.html'}")
    assert (done.returncode, done.stderr) == (2, f"error: {tmp_path} has no fit: too few runs\n")


def test_a_folder_that_is_no_ladder_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"ladder\.json: No such file"):
        ladders.read(str(tmp_path))
    (tmp_path / "ladder.json").write_text('{"format": 1}')
    with pytest.raises(InputError, match="lacks 'held_out': run"):
        ladders.read(str(tmp_path))
    (tmp_path / "ladder.json").write_text('{"format": 7}')
    with pytest.raises(InputError, match="is no ladder of format 1"):
        ladders.read(str(tmp_path))


@pytest.mark.parametrize(
    ("value", "count", "power"),
    [
        (1.4e9, "1.40 B", "1.40 x 10⁹"),
        (999.9e6, "1.00 B", "10⁹"),
        (124337664, "124 M", "1.24 x 10⁸"),
        (5.5e17, "5.50 x 10¹⁷", "5.50 x 10¹⁷"),
        (31.0, "31.0", "31.0"),
    ],
)
def test_numbers_are_as_people_write_them(value, count, power):
    said = words.count(value), words.power(value)
    assert tuple(text.replace(words.TIMES, "x") for text in said) == (count, power)


def test_the_command_writes_a_page_and_says_where(folder):
    out = folder / "out.html"
    done = command(f"--fit={folder / 'fit.json'}", f"--out={out}")
    assert done.returncode == 0, done.stderr
    assert str(out) in done.stdout
    assert Reader(out.read_text()).open == []


def command(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "scaling.report", *map(str, arguments)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )


def test_without_a_fit_the_command_says_what_is_missing():
    done = command()
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "no fit: name one with --fit=FILE" in done.stderr


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("law", "is not JSON"),
        ("[1]", "is no fit of format"),
        ('{"format": 99}', "is no fit of format"),
        ('{"format": 1, "law": "chinchilla"}', "another version wrote it"),
        (None, "No such file"),
    ],
)
def test_a_file_that_is_no_fit_is_refused_in_a_sentence(tmp_path, content, sentence):
    path = tmp_path / "fit.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(InputError, match=sentence) as error:
        collect(str(path))
    assert "\n" not in str(error.value)


def test_runs_that_are_not_there_are_named(tmp_path):
    with pytest.raises(InputError, match="no run directory"):
        curves.of_runs(str(tmp_path / "*"))
    run_directory(tmp_path, "empty", [])
    (tmp_path / "empty" / "metrics.jsonl").write_text('{"kind": "train", "loss": null}\n')
    with pytest.raises(InputError, match=r"empty: metrics\.jsonl has no row with a loss"):
        curves.of_runs(str(tmp_path / "*"))
    (tmp_path / "t.csv").write_text("D,loss\n1,3\n2,2\n")
    with pytest.raises(InputError, match="no run has two points"):
        curves.of_table(str(tmp_path / "t.csv"), "")

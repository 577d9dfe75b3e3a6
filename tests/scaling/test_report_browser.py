"""The report in a real browser: headless Chromium, spoken to over two pipes.

Skipped where there is no Chromium or Chrome, or where it does not start.
"""

import base64
import io
import json
import os
import select
import shutil
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest

from configs.schema import InputError
from scaling import costs, laws, record
from scaling.allocate import allocate, flat_region, price
from scaling.fit import fit
from scaling.report import collect, figures, page
from scaling.uncertainty import bootstrap

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--disable-dev-shm-usage", "--remote-debugging-pipe"),
)
# The browser reads commands from file 3 and writes answers to file 4, whatever the test has there.
_PIPES = (
    "import fcntl, os, sys; "
    "r, w = (fcntl.fcntl(int(f), fcntl.F_DUPFD, 10) for f in sys.argv[1:3]); "
    "os.dup2(r, 3); os.dup2(w, 4); os.execv(sys.argv[3], sys.argv[3:])"
)
_SECONDS = 60
EVIL = "</script><script>window.taken=1</script><img src=x onerror=window.taken=1>"
TRUE = {
    "chinchilla": {"E": 1.7, "A": 400.0, "B": 1500.0, "alpha": 0.34, "beta": 0.36},
    "kaplan_ND": {"N_c": 9e13, "D_c": 5e13, "alpha_N": 0.076, "alpha_D": 0.1},
}


class Browser:
    """One Chromium, and the page in it, by the DevTools protocol."""

    def __init__(self, program, folder):
        theirs_in, self.out = os.pipe()
        self.inside, theirs_out = os.pipe()
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-I", "-c", _PIPES, str(theirs_in), str(theirs_out), program),
                *(*_FLAGS, f"--user-data-dir={folder}"),
            ],
            pass_fds=(theirs_in, theirs_out),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(theirs_in)
        os.close(theirs_out)
        self.rest, self.number, self.session = b"", 0, {}
        self.events = []

    def call(self, method, **parameters):
        """One command and its answer; what happens in between is kept in `events`."""
        self.number += 1
        message = {"id": self.number, "method": method, "params": parameters, **self.session}
        os.write(self.out, json.dumps(message).encode() + b"\0")
        while (answer := self.next()).get("id") != self.number:
            self.events.append(answer)
        assert "error" not in answer, answer
        return answer["result"]

    def next(self):
        """The next message."""
        end = time.monotonic() + _SECONDS
        while b"\0" not in self.rest:
            ready = select.select([self.inside], [], [], max(end - time.monotonic(), 0))[0]
            assert ready, "the browser says nothing"
            found = os.read(self.inside, 1 << 16)
            assert found, "the browser is gone"
            self.rest += found
        message, _, self.rest = self.rest.partition(b"\0")
        return json.loads(message)

    def open(self, path, width=1000, height=800, dark=False):
        """Show a file in a new tab, and wait until its figures are drawn."""
        self.session, self.events = {}, []
        tab = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=tab, flatten=True)
        self.session = {"sessionId": attached["sessionId"]}
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 500,
        )
        theme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[theme])
        self.call("Page.navigate", url=path.as_uri())
        while not self.js("document.readyState == 'complete' && location.protocol == 'file:'"):
            time.sleep(0.05)
        self.js("new Promise(r => requestAnimationFrame(() => requestAnimationFrame(r)))")

    def js(self, code):
        """The value of an expression in the page."""
        answer = self.call(
            "Runtime.evaluate", expression=code, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def picture(self, selector):
        """RGB pixels of an element."""
        from matplotlib import image

        place = self.js(
            f"JSON.stringify(document.querySelector('{selector}').getBoundingClientRect())"
        )
        at = json.loads(place)
        top = at["y"] + self.js("scrollY")
        clip = {"x": at["x"], "y": top, "width": at["width"], "height": at["height"], "scale": 1}
        shot = self.call("Page.captureScreenshot", clip=clip, captureBeyondViewport=True)
        return image.imread(io.BytesIO(base64.b64decode(shot["data"])))[..., :3]

    def close(self):
        """End it, and no other process."""
        self.session = {}
        try:
            self.call("Browser.close")
        except (AssertionError, OSError):
            self.process.kill()
        self.process.wait(_SECONDS)
        os.close(self.out)
        os.close(self.inside)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    program = next(filter(None, map(shutil.which, _NAMES)), None)
    if program is None:
        pytest.skip(f"needs a browser, one of {', '.join(_NAMES)}: none is installed")
    found = Browser(program, tmp_path_factory.mktemp("profile"))
    try:
        found.call("Browser.getVersion")
    except (AssertionError, OSError) as error:
        found.close()
        pytest.skip(f"{program} does not start here: {error}")
    yield found
    found.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Reports of two laws, for rows on isoFLOP curves, with every section and hostile texts."""
    folder = tmp_path_factory.mktemp("pages")
    N = np.repeat(10.0 ** np.linspace(7, 9.5, 9), 5)
    D = np.tile(10.0 ** np.arange(18, 20.1, 0.5), 9) / 6 / N
    rng = np.random.default_rng(0)
    curve = {"run": EVIL, "N": 1e7, "tokens": [1e6, 2e6], "flops": [6e13, 12e13], "loss": [5, 4]}
    curve["evaluations"] = {"tokens": [2e6], "flops": [12e13], "loss": [4.1]}
    for name, parameters in TRUE.items():
        law = laws.get(name)
        loss = law.predict(parameters, {"N": N, "D": D}) * np.exp(0.002 * rng.normal(size=45))
        found = fit(law, {"N": N, "D": D, "loss": loss}, mask=EVIL)
        read = {"path": EVIL, "units": {"N": EVIL}, "where": EVIL, "conventions": {"N": EVIL}}
        values = record.to_json(found, bootstrap(found, 50), [], [], read)
        (folder / f"{name}.json").write_text(json.dumps(values))
        report = collect(str(folder / f"{name}.json"), [curve])
        report["backtest"] |= {"ratio": [2.0, 4.0], "error": [0.01, 0.02], "cutoff": [1e19, 1e19]}
        report["backtest"] |= {"predicted": [3, 3], "observed": [2.9, 2.9], "drift": [[2.0, 0.01]]}
        (folder / f"{name}.html").write_text(page.page(report))
    return folder


@pytest.fixture
def shown(browser, folder):
    browser.open(folder / "chinchilla.html")
    return browser


def trouble(browser):
    """What a console would show, and what was asked of the network."""
    kinds = ("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded")
    said = [event for event in browser.events if event["method"] in kinds]
    asked = [
        event["params"]["request"]["url"]
        for event in browser.events
        if event["method"] == "Network.requestWillBeSent"
    ]
    return said, [url for url in asked if not url.startswith(("file:", "data:"))], len(asked)


def test_the_page_runs_without_a_word_or_a_request(shown):
    shown.js("document.querySelectorAll('button').forEach(b => b.click())")
    shown.js("document.querySelectorAll('input').forEach(i => i.dispatchEvent(new Event('input')))")
    shown.js("new Promise(r => setTimeout(r, 100))")
    said, elsewhere, asked = trouble(shown)
    assert said == []
    assert elsewhere == []
    assert 1 <= asked <= 2  # the page itself, and its empty icon
    assert shown.js("window.taken") is None
    assert shown.js("document.images.length") == 0
    assert EVIL in shown.js("document.body.textContent")


def test_an_injected_script_would_not_run(shown):
    shown.js(
        "{const s = document.createElement('script'); s.textContent = 'window.taken=2';"
        "document.body.append(s)}"
    )
    assert shown.js("window.taken") is None


PLOTS = ("curves", "fit", "residuals", "isoflop", "frontier", "losses", "sizes", "backtest")


@pytest.mark.parametrize("dark", [False, True])
def test_no_figure_is_blank_or_lies_outside_its_frame(browser, folder, dark):
    browser.open(folder / "chinchilla.html", dark=dark)
    for name in PLOTS:
        pixels = browser.picture(f"#plot-{name} > svg")
        ground = pixels[0, 0]
        drawn = np.abs(pixels - ground).max(-1) > 0.1
        assert bool(ground.mean() < 0.3) is dark
        assert 0.005 < drawn.mean() < 0.9, name
        assert not drawn[:, -1].any(), name
        assert (
            browser.js(f"/NaN|Infinity/.test(document.querySelector('#plot-{name}').innerHTML)")
            is False
        )


def choose(browser, **values):
    """Move inputs as a hand would."""
    for name, value in values.items():
        browser.js(
            f"{{const i = document.getElementById('{name}'); i.value = {value};"
            "i.dispatchEvent(new Event('input', {bubbles: true}))}"
        )


def read(browser, *names):
    """The exact numbers behind what is shown."""
    script = "document.getElementById('{}').dataset.value"
    return [np.array(browser.js(script.format(n)).split(","), float).squeeze() for n in names]


@pytest.mark.parametrize("name", list(TRUE))
@pytest.mark.parametrize("served", [0, 3e10])
def test_the_slider_divides_a_budget_as_python_does(browser, folder, name, served):
    browser.open(folder / f"{name}.html")
    found, _ = record.load(str(folder / f"{name}.json"))
    loss, seen = figures.function(found), []
    cost = costs.total(costs.training_flops, costs.serving_flops(served))
    choose(browser, served=served, peak=500, mfu=50, devices=4, price=3)
    for wanted in (18.5, 20.25, 22.0):
        choose(browser, budget=wanted)
        (budget,) = read(browser, "budget-shown")
        assert budget == pytest.approx(10**wanted, rel=0.02)
        best = allocate(loss, cost, float(budget))
        np.testing.assert_allclose(
            read(browser, "best-N", "best-D", "law-loss"), [best.N, best.D, best.loss], rtol=1e-3
        )
        try:
            sizes = flat_region(loss, cost, float(budget)).sizes
        except InputError:
            sizes = None
        if sizes:
            np.testing.assert_allclose(read(browser, "flat")[0], sizes, rtol=1e-3)
        hours = 6 * best.N * best.D / (500e12 * 0.5 * 3600)
        np.testing.assert_allclose(
            read(browser, "hours", "days", "money"), [hours, hours / 4, hours * 3], rtol=2e-3
        )
        seen.append(browser.js("document.getElementById('best-N').textContent"))
    assert len(set(seen)) == 3


def test_a_law_of_ones_own_is_read_off_its_frontier(browser, folder, tmp_path, monkeypatch):
    monkeypatch.setitem(laws.LAWS, "own", replace(laws.CHINCHILLA, name="own"))
    values = json.loads((folder / "chinchilla.json").read_text()) | {"law": "own"}
    (tmp_path / "own.json").write_text(json.dumps(values))
    (tmp_path / "own.html").write_text(page.page(collect(str(tmp_path / "own.json"))))
    browser.open(tmp_path / "own.html")
    assert trouble(browser)[0] == []
    found, _ = record.load(str(tmp_path / "own.json"))
    for wanted in (18.53, 21.34):
        choose(browser, budget=wanted)
        (budget,) = read(browser, "budget-shown")
        best = allocate(figures.function(found), costs.training_flops, float(budget))
        np.testing.assert_allclose(
            read(browser, "best-N", "best-D", "law-loss"), [best.N, best.D, best.loss], rtol=1e-3
        )
    assert browser.js("getComputedStyle(document.getElementById('factor').parentNode).display") == (
        "none"
    )


def test_a_wrong_size_has_the_price_that_python_gives_it(shown, folder):
    found, _ = record.load(str(folder / "chinchilla.json"))
    choose(shown, budget=21.0, factor=0.5)
    (budget,), (factor,) = read(shown, "budget-shown"), read(shown, "factor-shown")
    wrong = price(figures.function(found), costs.training_flops, float(budget), float(factor))
    np.testing.assert_allclose(
        read(shown, "best-N", "best-D", "law-loss"), [wrong.N, wrong.D, wrong.loss], rtol=1e-3
    )
    np.testing.assert_allclose(read(shown, "worse")[0], wrong.wasted, rtol=1e-3)


def test_the_interval_is_that_of_the_forecast(shown, folder):
    told = collect(str(folder / "chinchilla.json"))["frontier"]
    at = 40
    choose(shown, budget=np.log10(told["C"][at]))
    (budget,), (loss,) = read(shown, "budget-shown"), read(shown, "law-loss")
    C, law = np.log(told["C"]), np.array(told["loss"])
    for name, seen in zip(("lower", "upper"), read(shown, "best-interval")[0], strict=True):
        share = np.interp(np.log(budget), C, np.log(np.array(told[name]) / law))
        assert seen == pytest.approx(loss * np.exp(share), rel=1e-6)
    why = min(told["reasons"], key=lambda each: abs(np.log(each["C"] / budget)))["why"]
    assert why in shown.js("document.getElementById('reason').textContent")
    warning = "document.getElementById('warning').textContent"
    choose(shown, budget=18.5)
    assert shown.js(warning) == ""
    choose(shown, budget=22.2)
    assert "do not rely on this one" in shown.js(warning)


def hover(browser, selector):
    """Move the mouse onto an element, and return what the tip says."""
    browser.js(f"document.querySelector('{selector}').scrollIntoView({{block: 'center'}})")
    code = f"JSON.stringify(document.querySelector('{selector}').getBoundingClientRect())"
    at = json.loads(browser.js(code))
    x, y = at["x"] + at["width"] / 2, at["y"] + at["height"] / 2
    browser.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
    host = selector.split()[0]
    return browser.js(f"(t => t.hidden ? '' : t.innerText)(document.querySelector('{host} .tip'))")


def test_the_nearest_point_says_its_numbers(shown, folder):
    table = json.loads((folder / "chinchilla.json").read_text())["table"]
    text = hover(shown, "#plot-fit circle.point:nth-of-type(8)")
    first = float(text.split("\n")[0].split()[1])
    assert min(abs(first - np.array(table["loss"]))) < 1e-3
    assert "N = " in text
    assert "the law says" in text
    assert EVIL in hover(shown, "#plot-curves circle.point")
    assert "minimum at C" in hover(shown, "#plot-isoflop circle.point[r=\\'5.5\\']")


def test_the_arrow_keys_go_from_point_to_point(shown):
    shown.js("document.querySelector('#plot-fit svg').focus()")
    texts = []
    for _ in range(2):
        for kind in ("rawKeyDown", "keyUp"):
            shown.call("Input.dispatchKeyEvent", type=kind, key="ArrowRight", code="ArrowRight")
        texts.append(shown.js("document.querySelector('#plot-fit .tip').innerText"))
    assert len(set(texts)) == 2


def test_a_choice_changes_the_axis_and_says_which_is_chosen(shown):
    title = "document.querySelector('#plot-fit text.title').textContent"
    before = shown.js(title)
    shown.js("document.querySelector('#choose-fit [data-key=N]').click()")
    assert (before, shown.js(title)) == ("training tokens D", "parameters N")
    pressed = (
        "[...document.querySelectorAll('#choose-fit [aria-pressed=true]')].map(b => b.dataset.key)"
    )
    assert shown.js(pressed) == ["N"]


def test_the_page_can_be_made_dark_by_hand(shown):
    ground = "getComputedStyle(document.body).backgroundColor"
    before = shown.js(ground)
    shown.js("document.getElementById('theme').click()")
    assert before == "rgb(255, 255, 255)"
    assert shown.js(ground) != before


@pytest.mark.parametrize("width", [320, 375])
def test_a_phone_shows_the_page_without_scrolling_sideways(browser, folder, width):
    browser.open(folder / "chinchilla.html", width=width, height=700)
    assert browser.js("document.documentElement.scrollWidth") <= width
    assert browser.js("visualViewport.scale") == 1
    wide = (
        "[...document.querySelectorAll('svg, input, button, .answer, pre')]"
        ".filter(e => e.getBoundingClientRect().right > innerWidth + 1).length"
    )
    assert browser.js(wide) == 0
    fonts = (
        "[...document.querySelectorAll('.plot svg text')]"
        ".map(t => parseFloat(getComputedStyle(t).fontSize))"
    )
    assert min(browser.js(fonts)) >= 11

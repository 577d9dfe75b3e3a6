// The compute frontier and the choice of a budget on it.

function showFrontier(frontier) {
  const { columns } = report.rows;
  const { C } = frontier;
  const minima = report.isoflop ? report.isoflop.budgets.filter((each) => each.minimum) : [];
  const says = (name) => (i) => [
    `C = ${power(C[i])}`,
    `${name} = ${count(frontier[name][i])}`,
    `loss ${trim4(frontier.loss[i])}`,
  ];
  const banded = [["N", ACCENT], ["D", WARM]].filter(([name]) => frontier[`${name}_low`]);
  const sizes = plot("plot-frontier", () => ({
    label: "best parameters and tokens over compute",
    x: { ...axisOf("C"), hold: [C[0], C[C.length - 1]] },
    y: { title: "best N and D", log: true, format: count, hold: [...frontier.N, ...frontier.D] },
    regions: [{ from: frontier.rows[0], to: frontier.rows[1] }],
    rules: [{ x: chosen.C }],
    bands: banded.map(([name, color]) => ({
      x: C, low: frontier[`${name}_low`], high: frontier[`${name}_high`], color,
    })),
    lines: [
      { x: C, y: frontier.N, color: ACCENT, name: "N, parameters", tip: says("N") },
      { x: C, y: frontier.D, color: WARM, kind: "dashed", name: "D, tokens", tip: says("D") },
    ],
    points: [["N", ACCENT], ["D", WARM]].map(([name, color]) => ({
      x: minima.map((each) => each.C), y: minima.map((each) => each.minimum[name]), color,
      name: minima.length ? `${name} of the isoFLOP minima` : "", kind: "hollow",
      tip: (i) => [
        `minimum of C = ${power(minima[i].C)}`,
        `${name} = ${count(minima[i].minimum[name])}`,
      ],
    })),
  }));
  const losses = plot("plot-losses", () => ({
    label: "loss over compute: the rows, and the law at the best division with its interval",
    x: { ...axisOf("C"), hold: [C[0], C[C.length - 1]] },
    y: { ...LOSS, hold: frontier.loss },
    regions: [{ from: frontier.rows[0], to: frontier.rows[1] }],
    rules: [{ x: chosen.C }],
    bands: [{
      x: C, low: frontier.lower, high: frontier.upper, color: ACCENT,
      name: `${trim4(100 * frontier.level)} % interval of one run`,
    }],
    lines: [{
      x: C, y: frontier.point, color: ACCENT, name: "forecast at the best division",
      tip: (i) => [
        `loss ${trim4(frontier.point[i])}`,
        `${trim4(frontier.lower[i])} to ${trim4(frontier.upper[i])}`,
        `C = ${power(C[i])}`,
      ],
    }],
    points: [{
      x: columns.C, y: columns.loss, color: WARM, kind: "hollow", name: "rows", tip: describe,
    }],
  }));
  return () => {
    sizes();
    losses();
  };
}

function duration(hours) {
  if (hours < 1.5) return `${trim(60 * hours)} minutes`;
  if (hours < 72) return `${trim(hours)} hours`;
  if (hours < 24 * 700) return `${trim(hours / 24)} days`;
  return `${count(hours / 24 / 365.25)} years`;
}

// What is shown at a budget; for a law without a form here, from the table along the frontier.
function choice(frontier, law, C, served, factor) {
  const along = (values) => Math.exp(between(frontier.C, values.map(Math.log), C));
  if (!law) {
    const N = along(frontier.N);
    return { C, N, D: C / 6 / N, loss: along(frontier.loss), used: C, flat: null };
  }
  const top = law.best(C, served);
  const taken = factor === 1 ? top : law.at(C, factor * top.N, served);
  const flat = law.flat(C, served, 0.01);
  const equivalent = factor === 1 ? C : law.equivalent(C, served, taken.loss);
  return { C, ...taken, top, flat, equivalent, used: 6 * taken.N * taken.D };
}

// The forecast at a division: the law's loss, moved and widened as along the frontier.
function forecastAt(frontier, found) {
  const relative = (name) => {
    const shifts = frontier[name].map((v, i) => Math.log(v / frontier.loss[i]));
    return found.loss * Math.exp(between(frontier.C, shifts, found.used));
  };
  return { point: relative("point"), lower: relative("lower"), upper: relative("upper") };
}

const chosen = { C: report.frontier && report.frontier.C ? report.frontier.rows[1] : 0 };

function put(id, text, value) {
  const node = document.getElementById(id);
  node.textContent = text;
  if (value !== undefined) node.dataset.value = value;
}

function number(id, fallback) {
  const value = Number(document.getElementById(id).value);
  return Number.isFinite(value) && value >= 0 ? value : fallback;
}

function showAllocation(frontier) {
  const parameters = Object.fromEntries(report.parameters.map((each) => [each.name, each.value]));
  const law = FORMS[report.law] && lawOf(report.law, parameters);
  const slider = document.getElementById("budget");
  const hundredth = (C) => Math.round(100 * Math.log10(C)) / 100; // so that powers of ten are there
  const ends = [frontier.C[0], frontier.C[frontier.C.length - 1]].map(hundredth);
  Object.assign(slider, { min: ends[0], max: ends[1], step: 0.01 });
  slider.value = Math.min(hundredth(10 * frontier.rows[1]), ends[1]);
  if (!law) document.querySelectorAll(".needs-law").forEach((node) => (node.hidden = true));
  const frontiers = showFrontier(frontier);
  let found = null;
  let queued = 0;
  const sizes = law ? plot("plot-sizes", () => sizePicture(frontier, law, found)) : () => {};
  const update = () => {
    const served = law ? number("served", 0) : 0;
    chosen.C = 10 ** Number(slider.value);
    const factor = 10 ** Number(document.getElementById("factor").value);
    found = { ...choice(frontier, law, chosen.C, served, factor), served };
    tell(frontier, found, factor);
    sizes();
    cancelAnimationFrame(queued); // all rows are drawn there: once a frame is enough
    queued = requestAnimationFrame(frontiers);
  };
  for (const id of ["budget", "factor", "served", "peak", "mfu", "devices", "price"]) {
    document.getElementById(id).addEventListener("input", update);
  }
  update();
}

function tell(frontier, found, factor) {
  const { C, N, D, loss: of, used } = found;
  const seen = forecastAt(frontier, found);
  const reach = used / frontier.rows[1];
  const warning = frontier.warnings.find((each) => reach > 1.0001 * each.above);
  const away = (each) => Math.abs(Math.log(each.C / used));
  const reason = frontier.reasons.reduce((a, b) => (away(b) < away(a) ? b : a));
  put("budget-shown", `${power(C)} operations`, C);
  put("factor-shown", factor === 1 ? "the best size" : `${trim(factor)} × the best size`, factor);
  put("best-N", `${count(N)}`, N);
  put("best-D", `${count(D)}`, D);
  put("best-ratio", trim(D / N), D / N);
  put("best-loss", trim4(seen.point), seen.point);
  put("law-loss", trim4(of), of);
  put("best-interval", `${trim4(seen.lower)} to ${trim4(seen.upper)}`, [seen.lower, seen.upper]);
  put("reach", reach > 1 ? `${trim(reach)} times the largest row` : "within the rows", reach);
  put("warning", warning ? warning.text : "");
  put("reason", `The interval near C = ${power(reason.C)}, ${reason.why}`);
  const rate = 3600e12 * number("peak", 0) * (number("mfu", 0) / 100);
  const hours = used / rate;
  const devices = Math.max(number("devices", 1), 1);
  const money = hours * number("price", 0);
  put("hours", rate > 0 ? count(hours) : "", hours);
  put("days", rate > 0 ? duration(hours / devices) : "", hours / devices);
  put("money", rate > 0 ? count(money) : "", money);
  if (!found.flat) return;
  put("flat", `${count(found.flat[0])} to ${count(found.flat[1])}`, found.flat);
  const wasted = 1 - found.equivalent / C;
  const worse = `${percent(of / found.top.loss - 1)} of the loss, or ${trim(100 * wasted)} %`;
  put("worse", factor === 1 ? "nothing" : `${worse} of the budget`, wasted);
}

function sizePicture(frontier, law, found) {
  const { C, top, served, flat } = found;
  const span = Array.from({ length: 81 }, (_, i) => top.N * 10 ** ((i - 40) / 30));
  const sizes = span.map((N) => law.at(C, N, served)).filter((each) => Number.isFinite(each.loss));
  const band = sizes.map((each) => forecastAt(frontier, { ...each, used: 6 * each.N * each.D }));
  const x = sizes.map((each) => each.N);
  const tip = (i) => [
    `N = ${count(x[i])}`, `D = ${count(sizes[i].D)}`, `loss ${trim4(sizes[i].loss)}`,
  ];
  const [low, high] = [band.map((each) => each.lower), band.map((each) => each.upper)];
  const best = {
    x: [top.N], y: [top.loss], color: ACCENT, radius: 5.5, name: "best",
    tip: () => ["best", `N = ${count(top.N)}`],
  };
  const taken = { x: [found.N], y: [found.loss], color: WARM, radius: 5.5, name: "chosen" };
  return {
    label: "loss over parameters at the chosen budget",
    x: { ...axisOf("N"), hold: [x[0], x[x.length - 1]] },
    y: { ...LOSS, hold: [1.1 * top.loss, found.loss] },
    regions: [{ from: flat[0], to: flat[1] }],
    bands: [{ x, low, high, color: ACCENT, name: "interval" }],
    lines: [{ x, y: sizes.map((each) => each.loss), color: ACCENT, name: "the law", tip }],
    points: found.N === top.N ? [best] : [best, taken],
  };
}

if (chosen.C) showAllocation(report.frontier);

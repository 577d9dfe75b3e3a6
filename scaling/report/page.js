// The report's figures, from the numbers embedded in the page.

const report = JSON.parse(document.getElementById("data").textContent);
const ACCENT = "#4c7fd0";
const WARM = "#d9703c";
const TITLES = {
  N: "parameters N", D: "training tokens D", C: "training compute C (operations)", S: "updates S",
  tokens: "training tokens", flops: "training compute (operations)", loss: "loss (nats per token)",
};
const LOSS = { title: "loss (nats per token)", log: true, format: (v) => trim4(v) };

function trim4(v) {
  return String(Number(v.toPrecision(4)));
}

function title(name) {
  const unit = report.symbols[name];
  return TITLES[name] || (unit ? `${name}, ${unit}` : name);
}

function formatOf(name) {
  return name === "C" || name === "flops" ? power : count;
}

function axisOf(name) {
  return { title: title(name), log: true, format: formatOf(name) };
}

function observed() {
  if (report.observed === "loss") return LOSS;
  return { ...LOSS, title: report.observed, format: (v) => (v < 1e4 ? trim4(v) : count(v)) };
}

function describe(row) {
  const { columns, predicted, residual } = report.rows;
  const inputs = Object.keys(columns).filter((name) => name !== report.observed);
  return [
    `${report.observed} ${trim4(columns[report.observed][row])}`,
    ...inputs.map((name) => `${name} = ${formatOf(name)(columns[name][row])}`),
    `the law says ${trim4(predicted[row])} (observed ${percent(residual[row])})`,
    `row ${row + 1} of those fitted`,
  ];
}

function scaleOf(name, values) {
  const good = values.filter((v) => v > 0);
  const [low, high] = [Math.min(...good), Math.max(...good)];
  if (!(high > low)) return undefined;
  return { title: name, low: formatOf(name)(low), high: formatOf(name)(high) };
}

function showFit() {
  const { columns } = report.rows;
  const { by, lines, x } = report.lines;
  const color = by ? rampOf(columns[by]) : () => ACCENT;
  const colored = lines.map((each) => ({ ...each, color: color(each.value) }));
  const again = plot("plot-fit", () => ({
    label: `${report.observed} over ${title(axes())}: the rows and the law`,
    x: axisOf(axes()),
    y: observed(),
    bands: axes() === x ? colored.filter((each) => each.low) : [],
    lines: axes() === x ? colored : [],
    points: [{
      x: columns[axes()], y: columns[report.observed], tip: describe,
      colors: columns[by || x].map(color),
    }],
    scale: by ? scaleOf(by, columns[by]) : undefined,
  }));
  const names = Object.keys(columns).filter((name) => name !== report.observed);
  names.sort((a, b) => (b === x) - (a === x));
  const overEach = (order) => Object.fromEntries(order.map((name) => [name, `over ${name}`]));
  const axes = choices("choose-fit", overEach(names), again);
  const computeFirst = [...new Set(["C", ...names])].filter((name) => columns[name]);
  const over = choices("choose-residuals", overEach(computeFirst), () => residuals());
  const residuals = plot("plot-residuals", () => ({
    label: `what the law leaves over, over ${title(over())}`,
    x: axisOf(over()),
    y: { title: "observed over predicted", format: percent, hold: [0] },
    rules: [{ y: 0 }],
    points: [{
      x: columns[over()], y: report.rows.residual.map(Math.expm1), tip: describe,
      colors: columns[by || x].map(color),
    }],
    scale: by ? scaleOf(by, columns[by]) : undefined,
  }));
}

function showCurves() {
  const curves = report.curves;
  const sized = curves.every((curve) => curve.N > 0);
  const color = sized
    ? rampOf(curves.map((curve) => curve.N))
    : (_, i) => ramp(i / Math.max(curves.length - 1, 1));
  const tip = (curve, from) => (i) => [
    curve.run,
    `loss ${trim4(from.loss[i])}`,
    `${count(from.tokens[i])} tokens`,
    ...(from.flops[i] ? [`${power(from.flops[i])} operations`] : []),
    ...(curve.N ? [`N = ${count(curve.N)}`] : []),
  ];
  const again = plot("plot-curves", () => ({
    label: `loss of ${curves.length} runs over ${title(over())}`,
    x: { ...axisOf(over()), hold: curves.flatMap((curve) => curve[over()]) },
    y: { ...LOSS, hold: curves.flatMap((curve) => curve.loss) },
    lines: curves.map((curve, i) => ({
      x: curve[over()], y: curve.loss, color: color(curve.N, i), kind: "thin",
      tip: tip(curve, curve),
    })),
    points: curves.map((curve, i) => ({
      x: curve.evaluations[over()], y: curve.evaluations.loss, color: color(curve.N, i),
      tip: tip(curve, curve.evaluations), radius: 2.5,
    })),
    scale: sized ? scaleOf("N", curves.map((curve) => curve.N)) : undefined,
  }));
  const known = { tokens: "over tokens", flops: "over compute" };
  if (!curves.every((curve) => curve.flops.every((v) => v > 0))) delete known.flops;
  const over = choices("choose-curves", known, () => again());
}

function showIsoflop() {
  const { budgets } = report.isoflop;
  const color = rampOf(budgets.map((each) => each.C));
  const found = budgets.filter((each) => each.minimum);
  plot("plot-isoflop", () => ({
    label: "loss over parameters at each budget, with the minima",
    x: axisOf("N"),
    y: LOSS,
    lines: budgets.map((each) => ({ x: each.curve.N, y: each.curve.loss, color: color(each.C) })),
    points: [
      ...budgets.map((each) => ({
        x: each.points.N, y: each.points.loss, color: color(each.C), kind: "hollow",
        tip: (i) => [
          `C = ${power(each.C)}`,
          `N = ${count(each.points.N[i])}`,
          `loss ${trim4(each.points.loss[i])}`,
          each.why,
        ].filter(Boolean),
      })),
      {
        x: found.map((each) => each.minimum.N), y: found.map((each) => each.minimum.loss),
        colors: found.map((each) => color(each.C)), radius: 5.5,
        tip: (i) => {
          const { N, D, loss, interval } = found[i].minimum;
          return [
            `minimum at C = ${power(found[i].C)}`,
            `N = ${count(N)} (${count(interval[0])} to ${count(interval[1])})`,
            `D = ${count(D)}`,
            `loss ${trim4(loss)}`,
          ];
        },
      },
    ],
    scale: scaleOf("C", budgets.map((each) => each.C)),
  }));
}

function showBacktest() {
  const { ratio, error, drift, observed: seen, predicted, cutoff, by } = report.backtest;
  const drifts = { x: drift.map((each) => each[0]), y: drift.map((each) => Math.expm1(each[1])) };
  plot("plot-backtest", () => ({
    label: "errors of predictions within the table, over how far they reached",
    x: { title: `how far beyond the fitted rows (${by}, times)`, log: true, format: trim4 },
    y: { title: "predicted over observed", format: percent, hold: [0] },
    rules: [{ y: 0 }],
    lines: [{ ...drifts, color: WARM }],
    points: [
      {
        x: ratio, y: error.map(Math.expm1), color: ACCENT, kind: "hollow", name: "one prediction",
        tip: (i) => [
          `${percent(Math.expm1(error[i]))} at ${trim4(ratio[i])} times`,
          `predicted ${trim4(predicted[i])}, observed ${trim4(seen[i])}`,
          `fitted to rows up to ${power(cutoff[i])}`,
        ],
      },
      { ...drifts, color: WARM, radius: 5.5, name: "drift, the mean error" },
    ],
  }));
}

function showLadder() {
  const runs = report.ladder.held_out;
  const relative = (name) => runs.map((each) => each[name] / each.loss - 1);
  const tip = (i) => [
    runs[i].run,
    `predicted ${trim4(runs[i].prediction)}, ${trim4(runs[i].lower)} to ${trim4(runs[i].upper)}`,
    `observed ${trim4(runs[i].loss)} (${percent(runs[i].error)})`,
    `N = ${count(runs[i].N)}, D = ${count(runs[i].D)}`,
  ];
  const group = (low, high, color, name, aside) => ({
    x: runs.map((each) => each.compute_ratio * aside), y: relative("prediction"),
    low: relative(low), high: relative(high), color, name, tip, radius: 4.5,
  });
  plot("plot-ladder", () => ({
    label: "predicted over observed loss of the runs held out",
    x: { title: "compute, times that of the largest fitted run", log: true, format: trim4 },
    y: { title: "predicted over observed", format: percent, hold: [0] },
    rules: [{ y: 0 }],
    points: [
      group("lower", "upper", ACCENT, "calibrated interval", 1),
      group("plain_lower", "plain_upper", WARM, "bootstrap alone", 1.02),
    ],
  }));
}

if (report.curves.length) showCurves();
if (report.ladder && report.ladder.held_out.length) showLadder();
if (report.isoflop) showIsoflop();
if (report.backtest.ratio.length) showBacktest();
showFit();

document.getElementById("theme").addEventListener("click", () => {
  const root = document.documentElement;
  const dark = root.dataset.theme
    ? root.dataset.theme === "dark"
    : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
});

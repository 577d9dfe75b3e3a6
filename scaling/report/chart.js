// Plots as SVG, drawn anew at every width: axes, bands, lines, points, a tip at the nearest one.
// A picture is {label, x: {title, log, format}, y: {...}, bands, lines, points, rules, regions,
// scale}. The axes hold the points, or the lines where there are none; the rest is cut off there.

const SVG = "http://www.w3.org/2000/svg";
const SUPERSCRIPTS = "⁰¹²³⁴⁵⁶⁷⁸⁹";
const RAMP = [
  [76, 91, 212], [43, 131, 186], [31, 158, 137], [116, 173, 57], [222, 155, 34], [217, 83, 60],
];
let pictures = 0;

function element(tag, attributes = {}, ...children) {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children); // strings become text: nothing in a table is ever read as HTML
  return node;
}

function html(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

// A color for a share from 0 to 1, readable on light and on dark ground.
function ramp(share) {
  const place = Math.min(Math.max(share, 0), 1) * (RAMP.length - 1);
  const low = Math.min(Math.floor(place), RAMP.length - 2);
  const mixed = RAMP[low].map((v, i) => Math.round(v + (RAMP[low + 1][i] - v) * (place - low)));
  return `rgb(${mixed.join(",")})`;
}

function rampOf(values) {
  const logs = values.filter((v) => v > 0).map(Math.log);
  const [low, high] = [Math.min(...logs), Math.max(...logs)];
  return (v) => ramp(high > low ? (Math.log(v) - low) / (high - low) : 0.2);
}

// 1.40 B: three digits and a suffix.
function count(v) {
  for (const [suffix, size] of [["T", 1e12], ["B", 1e9], ["M", 1e6], ["K", 1e3]]) {
    if (v >= 0.9995 * size && v < 1e15) return `${trim(v / size)} ${suffix}`;
  }
  return v >= 1e15 ? power(v) : trim(v);
}

function trim(v) {
  const places = v >= 99.95 ? 0 : v >= 9.995 ? 1 : 2;
  return v >= 0.1 || v === 0 ? v.toFixed(places) : v.toPrecision(2);
}

// 1.40 × 10²¹
function power(v) {
  if (!(v > 0)) return String(v);
  let exponent = Math.floor(Math.log10(v));
  let factor = v / 10 ** exponent;
  if (factor >= 9.995) [factor, exponent] = [1, exponent + 1];
  if (exponent >= -2 && exponent < 4) return trim(v);
  const raised = [...String(Math.abs(exponent))].map((digit) => SUPERSCRIPTS[digit]).join("");
  const shown = Math.abs(factor - 1) < 0.005 ? "" : `${factor.toFixed(2)} × `;
  return `${shown}10${exponent < 0 ? "⁻" : ""}${raised}`;
}

// A round number needs no zeros behind the point: 10 B, 3 × 10¹⁸.
function round(text) {
  return text.replace(/(\.\d*?)0+(?=\D|$)/, "$1").replace(/\.(?=\D|$)/, "");
}

function percent(v) {
  return `${v > 0 ? "+" : ""}${(100 * v).toFixed(Math.abs(v) < 0.1 ? 2 : 1)} %`;
}

function linearTicks(low, high, wanted) {
  const rough = (high - low) / wanted;
  const unit = 10 ** Math.floor(Math.log10(rough));
  const step = unit * [1, 2, 5, 10].find((factor) => unit * factor >= rough);
  const first = Math.ceil(low / step);
  const length = Math.max(Math.floor(high / step) - first + 1, 0);
  return Array.from({ length }, (_, k) => Number(((first + k) * step).toPrecision(12)));
}

function logTicks(low, high, wanted) {
  const decades = Math.log10(high / low);
  if (decades < 0.7) return linearTicks(low, high, wanted);
  const every = Math.max(1, Math.ceil(decades / wanted));
  const factors = decades > wanted / 1.7 ? [1] : decades > 1.6 ? [1, 3] : [1, 2, 5];
  const ticks = [];
  for (let k = Math.floor(Math.log10(low)); k <= Math.log10(high); k += 1) {
    if (((k % every) + every) % every) continue;
    for (const factor of factors) ticks.push(Number(`${factor}e${k}`));
  }
  return ticks.filter((v) => v >= low && v <= high);
}

// The range of an axis with some room, and where its ticks are.
function axis(spec, values, from, to, wanted) {
  const good = values.filter((v) => Number.isFinite(v) && (!spec.log || v > 0));
  let [low, high] = [Math.min(...good), Math.max(...good)];
  if (!good.length) [low, high] = [1, 10];
  const [into, outof] = spec.log ? [Math.log, Math.exp] : [(v) => v, (v) => v];
  let [a, b] = [into(low), into(high)];
  const room = b > a ? 0.05 * (b - a) : spec.log ? 0.1 : Math.max(Math.abs(a) * 0.1, 1e-3);
  [a, b] = [a - room, b + room];
  const place = (v) => from + ((into(v) - a) / (b - a)) * (to - from);
  const ticks = spec.log ? logTicks(outof(a), outof(b), wanted) : linearTicks(a, b, wanted);
  return { place, ticks, low: outof(a), high: outof(b), spec };
}

function path(xs, ys, x, y) {
  let [text, pen] = ["", "M"];
  xs.forEach((v, i) => {
    const [px, py] = [x.place(v), y.place(ys[i])];
    if (!Number.isFinite(px) || !Number.isFinite(py)) return void (pen = "M");
    text += `${pen}${px.toFixed(1)},${py.toFixed(1)}`;
    pen = "L";
  });
  return text;
}

function frame(svg, x, y, box) {
  for (const tick of x.ticks) {
    const at = x.place(tick).toFixed(1);
    const where = { x: at, y: box.bottom + 16, "text-anchor": "middle" };
    svg.append(
      element("line", { class: "grid", x1: at, x2: at, y1: box.top, y2: box.bottom }),
      element("text", where, round(x.spec.format(tick))),
    );
  }
  for (const tick of y.ticks) {
    const at = y.place(tick).toFixed(1);
    const where = { x: box.left - 6, y: Number(at) + 4, "text-anchor": "end" };
    svg.append(
      element("line", { class: "grid", x1: box.left, x2: box.right, y1: at, y2: at }),
      element("text", where, round(y.spec.format(tick))),
    );
  }
  const middle = (box.left + box.right) / 2;
  const below = { class: "title", x: middle, y: box.bottom + 36, "text-anchor": "middle" };
  svg.append(
    element("text", below, x.spec.title),
    element("text", { class: "title", x: 4, y: 12 }, y.spec.title),
  );
}

function draw(host, picture) {
  const width = Math.max(host.clientWidth, 240);
  const height = Math.round(Math.min(Math.max(width * 0.52, 240), 400));
  const box = { left: 58, right: width - 12, top: 24, bottom: height - 46 };
  const { bands = [], lines = [], points = [], rules = [], regions = [] } = picture;
  const held = points.length ? points : lines;
  const all = (spec, ...keys) =>
    [...keys.flatMap((key) => held.flatMap((each) => each[key] || [])), ...(spec.hold || [])];
  const x = axis(picture.x, all(picture.x, "x"), box.left, box.right, width / 85);
  const heights = all(picture.y, "y", "low", "high");
  const y = axis(picture.y, heights, box.bottom, box.top, height / 55);
  const about = { role: "img", tabindex: 0, "aria-label": picture.label };
  const svg = element("svg", { width, height, ...about });
  const clip = `clip-${(pictures += 1)}`;
  const [across, down] = [box.right - box.left, box.bottom - box.top];
  const area = { x: box.left, y: box.top, width: across, height: down };
  svg.append(element("clipPath", { id: clip }, element("rect", area)));
  const inside = element("g", { "clip-path": `url(#${clip})` });
  for (const { from, to } of regions) {
    const [a, b] = [x.place(from), x.place(to)];
    inside.append(element("rect", { ...area, class: "region", x: a, width: Math.max(b - a, 1) }));
  }
  frame(svg, x, y, box);
  for (const band of bands) {
    const back = [...band.x].reverse();
    const there = path(band.x, band.low, x, y);
    const d = `${there}${path(back, [...band.high].reverse(), x, y).replace("M", "L")}Z`;
    inside.append(element("path", { d, fill: band.color, class: "band" }));
  }
  for (const rule of rules) {
    const at = rule.x === undefined ? y.place(rule.y) : x.place(rule.x);
    const [x1, x2] = rule.x === undefined ? [box.left, box.right] : [at, at];
    const [y1, y2] = rule.x === undefined ? [at, at] : [box.top, box.bottom];
    inside.append(element("line", { class: "rule", x1, x2, y1, y2 }));
  }
  const hot = [];
  for (const line of lines) {
    const look = { stroke: line.color, class: `line ${line.kind || ""}` };
    inside.append(element("path", { d: path(line.x, line.y, x, y), ...look }));
    if (line.tip) line.x.forEach((v, i) => spot(hot, x.place(v), y.place(line.y[i]), line, i));
  }
  for (const group of points) {
    group.x.forEach((v, i) => {
      const [px, py] = [x.place(v), y.place(group.y[i])];
      if (!Number.isFinite(px) || !Number.isFinite(py)) return;
      const color = group.colors ? group.colors[i] : group.color;
      if (group.low) {
        const [y1, y2] = [y.place(group.low[i]), y.place(group.high[i])];
        inside.append(element("line", { class: "whisker", stroke: color, x1: px, x2: px, y1, y2 }));
      }
      const place = { cx: px.toFixed(1), cy: py.toFixed(1), r: group.radius || 3.6 };
      const fill = group.kind === "hollow" ? "none" : color;
      inside.append(element("circle", { class: "point", ...place, stroke: color, fill }));
      if (group.tip) spot(hot, px, py, group, i);
    });
  }
  svg.append(inside);
  host.replaceChildren(svg, ...legend(picture));
  const between = (v, low, high) => v >= low && v <= high;
  listen(host, svg, hot.filter((each) =>
    between(each.x, box.left, box.right) && between(each.y, box.top, box.bottom)));
}

function spot(hot, x, y, group, index) {
  hot.push({ x, y, tip: () => group.tip(index) });
}

function legend({ lines = [], points = [], bands = [], scale }) {
  const forms = [
    [bands, (color) => element("rect", { width: 22, height: 12, fill: color, class: "band" })],
    [lines, (color, kind) =>
      element("path", { d: "M1,6H21", stroke: color, class: `line ${kind}` })],
    [points, (color, kind) => {
      const fill = kind === "hollow" ? "none" : color;
      return element("circle", { cx: 11, cy: 6, r: 4, class: "point", stroke: color, fill });
    }],
  ];
  const entries = forms.flatMap(([groups, form]) =>
    groups.filter((group) => group.name).map(({ name, color, kind = "" }) =>
      html("span", {}, element("svg", { width: 22, height: 12 }, form(color, kind)), ` ${name}`)));
  if (scale) {
    const strip = element("svg", { width: 120, height: 10 });
    for (let i = 0; i < 60; i++) {
      strip.append(element("rect", { x: 2 * i, width: 2.2, height: 10, fill: ramp(i / 59) }));
    }
    entries.push(html("span", {}, `${scale.title} ${scale.low} `, strip, ` ${scale.high}`));
  }
  return entries.length ? [html("div", { class: "legend" }, ...entries)] : [];
}

// The tip follows the pointer, a finger, or the arrow keys.
function listen(host, svg, hot) {
  const tip = html("div", { class: "tip", role: "status", hidden: "" });
  const ring = element("circle", { class: "ring", r: 7, visibility: "hidden" });
  svg.append(ring);
  host.append(tip);
  hot.sort((a, b) => a.x - b.x);
  let current = -1;
  const hide = () => {
    tip.hidden = true;
    ring.setAttribute("visibility", "hidden");
  };
  const show = (index) => {
    current = index;
    const { x, y, tip: text } = hot[index];
    const [first, ...rest] = text();
    tip.replaceChildren(html("b", {}, first), ...rest.map((line) => html("div", {}, line)));
    tip.hidden = false;
    ring.setAttribute("cx", x);
    ring.setAttribute("cy", y);
    ring.setAttribute("visibility", "visible");
    const left = x + 14 + tip.offsetWidth > host.clientWidth ? x - 14 - tip.offsetWidth : x + 14;
    tip.style.left = `${Math.max(left, 0)}px`;
    tip.style.top = `${Math.max(y - tip.offsetHeight - 8, 0)}px`;
  };
  const seek = (event) => {
    const place = svg.getBoundingClientRect();
    const [x, y] = [event.clientX - place.left, event.clientY - place.top];
    let [nearest, least] = [-1, 50 ** 2];
    hot.forEach((s, i) => {
      const away = (s.x - x) ** 2 + (s.y - y) ** 2;
      if (away < least) [nearest, least] = [i, away];
    });
    if (nearest < 0) hide();
    else show(nearest);
  };
  svg.addEventListener("pointermove", seek);
  svg.addEventListener("pointerdown", seek);
  svg.addEventListener("pointerleave", hide);
  svg.addEventListener("blur", hide);
  svg.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step || !hot.length) return;
    event.preventDefault();
    show((current + step + hot.length) % hot.length);
  });
}

// Draws now and whenever the width changes. `make` gives the picture, so that it can change, too.
function plot(id, make) {
  const host = document.getElementById(id);
  if (!host) return () => {};
  let width = -1;
  const again = () => draw(host, make());
  new ResizeObserver(() => {
    if (host.clientWidth === width) return;
    width = host.clientWidth;
    again();
  }).observe(host);
  return again;
}

// A row of buttons of which one is pressed; returns which.
function choices(id, names, changed) {
  const host = document.getElementById(id);
  let chosen = Object.keys(names)[0];
  if (!host || Object.keys(names).length < 2) return () => chosen;
  const buttons = Object.entries(names).map(([key, name]) => {
    const about = { type: "button", "data-key": key, "aria-pressed": key === chosen };
    const button = html("button", about, name);
    button.addEventListener("click", () => {
      chosen = key;
      for (const each of buttons) each.setAttribute("aria-pressed", each === button);
      changed();
    });
    return button;
  });
  host.append(...buttons);
  return () => chosen;
}

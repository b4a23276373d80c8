// The plane of a sweep: cells over two columns, and the runs that a reader points at.
"use strict";

const data = JSON.parse(document.getElementById("data").textContent);
const RUNS = data.endings.length;
const DECADE = 10;  // a ratio of the ends from which on an axis is logarithmic
const byId = (id) => document.getElementById(id);

// What is shown: two columns, a column of colours ("" for the endings), which endings, kept cells.
const view = {x: data.axes[0], y: data.axes[1] ?? data.axes[0], colour: "", shown: new Set(data.kinds.keys()), kept: []};
let cells = [];  // {x, y, runs}: places in units of the axes, and the runs at each
let at = -1;     // the cell that is pointed at
let full = false;  // whether they fill the plane, or lie scattered in it

// ---- places

function scaleOf(values) {
  const known = values.filter((value) => value !== null);
  const low = Math.min(...known), high = Math.max(...known);
  return low > 0 && high > DECADE * low ? Math.log10 : (value) => value;
}

function place() {
  const xs = data.columns[view.x], ys = data.columns[view.y];
  const across = scaleOf(xs), up = scaleOf(ys), found = new Map();
  for (let run = 0; run < RUNS; run++) {
    if (xs[run] === null || ys[run] === null || !view.shown.has(data.endings[run])) continue;
    const key = `${xs[run]} ${ys[run]}`;
    if (!found.has(key)) found.set(key, {x: across(xs[run]), y: up(ys[run]), runs: []});
    found.get(key).runs.push(run);
  }
  cells = [...found.values()];
  at = -1;
}

const distinct = (values) => [...new Set(values)].sort((a, b) => a - b);

// The borders of each place: half-way to its neighbours. Null where the runs form no grid.
function borders(axis) {
  const places = distinct(cells.map((cell) => cell[axis]));
  const edges = new Map();
  places.forEach((here, i) => {
    const before = i ? places[i - 1] : 2 * here - places[1], after = places[i + 1] ?? 2 * here - places[i - 1];
    edges.set(here, [(before + here) / 2, (here + after) / 2]);
  });
  return places.length > 1 ? edges : null;
}

// ---- colours

const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;
const known = (name, runs) => runs.map((run) => data.columns[name][run]).filter((value) => value !== null);

function colours() {
  if (!view.colour) return cells.map((cell) => data.kinds[Math.max(...cell.runs.map((run) => data.endings[run]))].colour);
  const scale = scaleOf(data.columns[view.colour]);
  const values = cells.map((cell) => known(view.colour, cell.runs)).map((each) => each.length ? scale(mean(each)) : null);
  const there = values.filter((value) => value !== null), low = Math.min(...there), high = Math.max(...there);
  const steps = data.palette.length - 1;
  return values.map((value) => value === null ? "#888888" : data.palette[Math.round(steps * (high > low ? (value - low) / (high - low) : 0.5))]);
}

function showScale() {
  const bar = byId("scale");
  bar.replaceChildren();
  if (!view.colour || !cells.length) return;
  const means = cells.map((cell) => known(view.colour, cell.runs)).filter((each) => each.length).map(mean);
  const ramp = element("span", "", "ramp");
  ramp.style.background = `linear-gradient(to right, ${data.palette.filter((_, i) => i % 32 === 0).join(", ")})`;
  bar.append(`${view.colour}: ${text(Math.min(...means))}`, ramp, text(Math.max(...means)), "; grey: not finite");
}

// ---- drawing

const plots = {};  // by name, once they are there

function source(plot, name) {
  return plots[plot].renderers.find((renderer) => renderer.name === name).data_source;
}

function draw() {
  place();
  const fill = colours(), across = borders("x"), up = borders("y");
  full = across && up && cells.length >= 0.5 * across.size * up.size;
  const empty = {left: [], right: [], bottom: [], top: [], fill: []};
  source("plane", "cells").data = full ? {
    left: cells.map((cell) => across.get(cell.x)[0]), right: cells.map((cell) => across.get(cell.x)[1]),
    bottom: cells.map((cell) => up.get(cell.y)[0]), top: cells.map((cell) => up.get(cell.y)[1]), fill,
  } : empty;
  source("plane", "points").data = full ? {x: [], y: [], fill: []}
    : {x: cells.map((cell) => cell.x), y: cells.map((cell) => cell.y), fill};
  label("x", plots.plane.below[0], plots.plane.x_range);
  label("y", plots.plane.left[0], plots.plane.y_range);
  drawLines();
  showScale();
  point(-1);
}

const bokeh = (model, properties) => new (Bokeh.Models.get(model))(properties);

function label(axis, model, range) {
  const values = data.columns[view[axis]].filter((value) => value !== null), scale = scaleOf(values);
  const ends = [scale(Math.min(...values)), scale(Math.max(...values))];
  const beyond = 0.03 * (ends[1] - ends[0]) || 0.5;
  range.setv({start: ends[0] - beyond, end: ends[1] + beyond, reset_start: ends[0] - beyond, reset_end: ends[1] + beyond});
  model.axis_label = view[axis].replaceAll("_", " ");
  const logarithmic = scale === Math.log10;
  const ticks = logarithmic ? decades(ends) : [];
  model.ticker = logarithmic ? bokeh("FixedTicker", {ticks}) : bokeh("BasicTicker", {});
  model.major_label_overrides = new Map(ticks.map((tick) => [tick, text(10 ** tick)]));
}

// Powers of ten, with 2 and 5 between them where there are few.
function decades([low, high]) {
  const between = high - low < 2.5 ? [1, 2, 5] : [1], ticks = [];
  const stride = Math.max(1, Math.ceil((high - low) / 8));
  for (let power = Math.floor(low) - 1; power <= high + 1; power += stride) {
    ticks.push(...between.map((digit) => power + Math.log10(digit)));
  }
  return ticks;
}

function drawLines() {
  const inPlane = view.x === "effective_initial_scale" && view.y === "canonical_learning_rate";
  const words = [];
  for (const dash of ["solid", "dashed", "dotted"]) {
    const line = inPlane && data.lines.find((each) => each.dash === dash);
    const parts = line ? line.parts : [];
    source("plane", dash).data = {
      x: parts.map((part) => part.x.map(scaleOf(data.columns[view.x]))),
      y: parts.map((part) => part.y.map(scaleOf(data.columns[view.y]))),
    };
    if (line) words.push(`${dash} line: ${line.name}`);
  }
  byId("lines").textContent = words.join("; ");
}

// ---- what is pointed at, and what is kept

const element = (tag, content = "", className = "") => Object.assign(document.createElement(tag), {textContent: content, className});
const text = (value) => value === null || value === undefined ? "not finite" : `${Number(value.toPrecision(4))}`;

function describe(run, colour) {
  const box = element("div", "", "run");
  box.style.borderColor = colour;
  const foretold = data.foretold[run] === null ? "" : `; foretold: ${data.foretold[run]}`;
  box.append(element("p", `Run ${run}: ${data.texts.outcome[run]}, ${data.texts.course[run]}${foretold}.`));
  const facts = element("ul", "", "facts");
  for (const [name, values] of Object.entries(data.columns)) {
    const fact = element("li");
    fact.append(element("span", `${name} `), text(values[run]));
    facts.append(fact);
  }
  const command = element("div", "", "command"), button = element("button", "copy", "copy");
  button.type = "button";
  button.setAttribute("aria-label", `copy the command of run ${run}`);
  command.append(element("pre", data.commands[run]), button);
  box.append(facts, command);
  return box;
}

function point(index) {
  at = index;
  const cell = cells[at], now = byId("now");
  if (!cell) now.replaceChildren(element("p", "No run is pointed at.", "soft"));
  else {
    const shown = describe(cell.runs[0], colour("--ink"));
    if (cell.runs.length > 1) shown.prepend(element("p", `${cell.runs.length} runs lie here; the first of them:`));
    now.replaceChildren(shown);
  }
  drawCurves();
}

function keep(index) {
  const cell = cells[index];
  if (!cell) return;
  const run = cell.runs[0], place = view.kept.indexOf(run);
  if (place >= 0) view.kept.splice(place, 1);
  else if (view.kept.length < data.keptColours.length) view.kept.push(run);
  showKept();
}

function showKept() {
  const boxes = view.kept.map((run, i) => describe(run, data.keptColours[i]));
  byId("kept").replaceChildren(...(boxes.length ? boxes : [element("p", "None yet.", "soft")]));
  drawCurves();
}

function drawCurves() {
  const drawn = view.kept.map((run, i) => ({run, line: data.keptColours[i], width: 2.5}));
  if (cells[at]) drawn.push(...cells[at].runs.map((run) => ({run, line: colour("--ink"), width: 1.5})));
  for (const name of ["train_loss", "test_accuracy"]) {
    const ys = drawn.map(({run}) => data.curves[name][run].map((value) => value ?? NaN));
    const xs = ys.map((values) => values.map((_, i) => i + 1)), line = drawn.map((each) => each.line);
    source(name, "curves").data = {x: xs, y: ys, line, width: drawn.map((each) => each.width)};
    source(name, "ends").data = {x: xs.map((each) => each.at(-1)), y: ys.map((each) => each.at(-1)), line};
    fit(name, ys.flat().filter((y) => y > 0));
  }
  const marks = {x: [], y: [], line: []};
  const mark = (cell, line) => { marks.x.push(cell.x); marks.y.push(cell.y); marks.line.push(line); };
  view.kept.forEach((run, i) => {
    const cell = cells.find(({runs}) => runs.includes(run));
    if (cell) mark(cell, data.keptColours[i]);
  });
  if (cells[at]) mark(cells[at], colour("--ink"));
  source("plane", "marks").data = marks;
}

// The axes of a plot of curves, around what is drawn; of losses they are logarithmic.
function fit(name, values) {
  if (!values.length) return;
  const low = Math.min(...values), high = Math.max(...values), beyond = name === "train_loss" ? 1.2 : 1.05;
  const start = name === "train_loss" ? low / beyond : 0, end = high * beyond;
  plots[name].y_range.setv({start, end, reset_start: start, reset_end: end});
}

// ---- pointer and keys

function nearest(x, y) {
  const {x_range, y_range} = plots.plane, width = x_range.end - x_range.start, height = y_range.end - y_range.start;
  let best = -1, least = full ? Infinity : 0.05 ** 2;
  cells.forEach((cell, i) => {
    const distance = ((cell.x - x) / width) ** 2 + ((cell.y - y) / height) ** 2;
    if (distance < least) [best, least] = [i, distance];
  });
  return best;
}

// The nearest cell in a direction: along it as near as can be, and beside it little.
function towards(dx, dy) {
  if (at < 0) return cells.length ? 0 : -1;
  const {x_range, y_range} = plots.plane, width = x_range.end - x_range.start, height = y_range.end - y_range.start;
  let best = at, least = Infinity;
  cells.forEach((cell, i) => {
    const x = (cell.x - cells[at].x) / width, y = (cell.y - cells[at].y) / height;
    const along = x * dx + y * dy, aside = Math.abs(x * dy) + Math.abs(y * dx);
    if (along > 1e-9 && along + 4 * aside < least) [best, least] = [i, along + 4 * aside];
  });
  return best;
}

const ARROWS = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowDown: [0, -1], ArrowUp: [0, 1]};

function onKey(event) {
  if (ARROWS[event.key]) point(towards(...ARROWS[event.key]));
  else if (event.key === "Enter") keep(at);
  else if (event.key === "Escape") { view.kept = []; showKept(); }
  else return;
  event.preventDefault();
}

whenDrawn(() => {
  for (const document of Bokeh.documents) for (const root of document.roots()) plots[root.name] = root;
  for (const axis of ["x", "y", "colour"]) {
    byId(axis).value = view[axis];
    byId(axis).addEventListener("change", ({target}) => { view[axis] = target.value; draw(); });
  }
  byId("filters").addEventListener("change", ({target}) => {
    view.shown[target.checked ? "add" : "delete"](Number(target.value));
    draw();
  });
  plots.plane.on_event("mousemove", ({x, y}) => { const index = nearest(x, y); if (index !== at) point(index); });
  plots.plane.on_event("tap", ({x, y}) => { const index = nearest(x, y); point(index); keep(index); });
  byId("field").addEventListener("keydown", onKey);
  draw();
});

// The explorer: sliders, buttons and the address set a setting; the rest of the page follows it.
"use strict";

const data = JSON.parse(document.getElementById("data").textContent);
const {measured, cases, sliders} = data;
const byId = (id) => document.getElementById(id);
const element = (tag, content = "", className = "") => Object.assign(document.createElement(tag), {textContent: content, className});
const logs = {rate: measured.rate.map(Math.log10), scale: measured.scale.map(Math.log10)};
const ADDRESS_AFTER = 250;  // milliseconds of rest; browsers limit how often an address may change
const DECAY_MATTERS = 0.01;  // assumed: a shrinkage of the weights that no curve shows

let setting = structuredClone(BASELINE_SETTING);
let drawn = -1;    // the run whose curves are shown
const plots = {};  // by name, once they are there

// ---- the setting, one slider's part of it, and the address

const read = ({name, layer}) => layer === null ? setting[name] : setting[name][layer];

function write({name, layer}, value) {
  if (layer === null) setting[name] = value;
  else setting[name][layer] = value;
}

const allowed = (value, {zero}) => (zero && value === 0) || inFloat32(value);

function change(slider, value) {
  const before = read(slider);
  const other = sliders.find(({name, layer}) => name === slider.name && layer === 1 - slider.layer);
  write(slider, value);
  if (byId("together").checked && slider.layer !== null && before && value) {
    const along = short(read(other) * value / before);
    if (allowed(along, other)) write(other, along);
  }
  show();
}

// Three digits, as a slider sets them.
const short = (value) => Number(value.toPrecision(3));

const place = (slider, value) => value ? Math.log10(value) : slider.low;

function toAddress() {
  return "#" + Object.entries(setting).map(([name, value]) => `${name}=${[value].flat().join(",")}`).join("&");
}

// The setting that an address holds; null if it holds none.
function fromAddress(hash) {
  const words = new URLSearchParams(hash.slice(1)), there = structuredClone(BASELINE_SETTING);
  for (const name of Object.keys(there)) {
    const values = (words.get(name) ?? "").split(","), like = [there[name]].flat();
    const numbers = values.map((text) => text.trim() ? Number(text) : NaN);
    const zero = name === "weightDecay";
    if (numbers.length !== like.length || !numbers.every((value) => allowed(value, {zero}))) return null;
    there[name] = Array.isArray(there[name]) ? numbers : numbers[0];
  }
  return there;
}

let waiting = 0;

function remember() {
  clearTimeout(waiting);
  waiting = setTimeout(() => history.replaceState(null, "", toAddress()), ADDRESS_AFTER);
}

// ---- where it lies, and what was measured there

const middle = ({initScale: [first, second]}) => Math.sqrt(first * second);

function nearest(form) {
  const x = Math.log10(middle(form)), y = Math.log10(form.learningRate);
  let best = 0, least = Infinity;
  for (let run = 0; run < logs.rate.length; run++) {
    const distance = (logs.scale[run] - x) ** 2 + (logs.rate[run] - y) ** 2;
    if (distance < least) [best, least] = [run, distance];
  }
  return best;
}

const isUneven = ({initScale: [first, second]}) => differs(first / second);

// Why the nearest run is not this one, in sentences; empty where it stands for it.
function doubts(form, run) {
  const said = [], [first, second] = form.initScale.map((value) => general(value, 3));
  if (isUneven(form)) {
    said.push(`κ1 = ${first} and κ2 = ${second} differ: the ring lies at √(κ1·κ2), where the plane cannot show ` +
      "the difference. All measured runs have κ1 = κ2, so none of them is this one.");
  }
  const outside = [["R", form.learningRate, measured.rate], ["√(κ1·κ2)", middle(form), measured.scale]]
    .filter(([, value, all]) => value > 1.1 * Math.max(...all) || value < Math.min(...all) / 1.1);
  if (outside.length) said.push(`${outside.map(([name, value]) => `${name} = ${general(value, 3)}`).join(" and ")}: beyond what was measured.`);
  // By which share of the weights, over the measured steps, the two decays shrink them apart.
  const apart = Math.max(...form.decay.map((decay) => Math.abs(decay - measured.decay[run]))) / (1 - data.momentum);
  if (apart * data.steps > DECAY_MATTERS) {
    said.push(`Its decay δ is ${alike(form.decay.map((value) => general(value, 3)))}, the measured run's ${general(measured.decay[run], 3)}.`);
  }
  return said;
}

function fate(run) {
  const percent = (share) => share === null ? "not finite" : `${(100 * share).toFixed(1)}\u00a0%`;
  const epochs = `${data.epochs} epoch${data.epochs > 1 ? "s" : ""}`;
  return `κ1 = κ2 = ${general(measured.scale[run], 3)}, R = ${general(measured.rate[run], 3)}: ${measured.outcome[run]} ` +
    `(its course: ${measured.course[run]}); test accuracy ${percent(measured.test_accuracy[run].at(-1))} after ` +
    `${epochs}, ${percent(measured.dead[run])} of the hidden units dead.`;
}

// ---- what is shown

function show() {
  const form = canonical(setting), run = nearest(form), doubt = doubts(form, run);
  showControls();
  showGuide();
  byId("sentence").textContent = whichRun(setting);
  showNumbers(form);
  drawPlane(form, run);
  byId("where").textContent = doubt.join(" ");
  byId("fate").replaceChildren(element("b", doubt.length ? "Not this run, only the nearest measured one: " : "The nearest measured run: "), fate(run));
  if (run !== drawn) drawCurves("nearest", drawn = run);
  showRepairs();
  remember();
}

function showControls() {
  for (const slider of sliders) {
    const value = read(slider), range = byId(slider.id), text = byId(`${slider.id}-number`);
    if (document.activeElement !== range || Math.abs(range.value - place(slider, value)) > 0.02) range.value = place(slider, value);
    range.setAttribute("aria-valuetext", general(value, 4));
    text.value = general(value, 4);
    text.removeAttribute("aria-invalid");
  }
}

function showGuide() {
  const pressed = cases.find((each) => equalSettings(each.setting, setting));
  for (const button of document.querySelectorAll("button.case")) {
    button.setAttribute("aria-pressed", String(Number(button.value) === pressed?.number));
  }
  const guide = byId("guide");
  guide.replaceChildren();
  if (!pressed) guide.append("None of what was tried: your own setting. Rates alone never alter κ1·κ2 = s·a1·a2.");
  else guide.append(element("b", `${pressed.number}: ${pressed.ended}. `), pressed.reason);
}

function showNumbers(form) {
  const {inputScale, initScale} = setting, beside = ratios(setting);
  const product = root([[inputScale, 1], [initScale[0], 1], [initScale[1], 1]]);
  const rows = [
    ["R = s·√(η1·η2)", form.learningRate, RATE, beside.learningRate[0]],
    ["κ1·κ2 = s·a1·a2", product, 1, product],
    ...LAYERS.map((i) => [`κ${i + 1}, initial scale`, form.initScale[i], 1, beside.initScale[i]]),
    ...LAYERS.map((i) => [`δ${i + 1} = η${i + 1}·d${i + 1}`, form.decay[i], RATE * DECAY, beside.decay[i]]),
  ];
  byId("numbers").tBodies[0].replaceChildren(...rows.map(([name, value, usual, ratio]) => {
    const row = element("tr"), wrong = differs(ratio);
    row.append(Object.assign(element("th", name), {scope: "row"}), element("td", general(value, 4)),
      element("td", general(usual, 4)), element("td", wrong ? times(ratio) : "the same", wrong ? "warn" : ""));
    return row;
  }));
}

const source = (plot, name) => plots[plot].renderers.find((renderer) => renderer.name === name).data_source;

function drawPlane(form, run) {
  const within = (value, {start, end}) => Math.min(Math.max(value, start), end);
  source("plane", "nearest").data = {x: [measured.scale[run]], y: [measured.rate[run]]};
  source("plane", "here").data = {
    x: [within(middle(form), plots.plane.x_range)], y: [within(form.learningRate, plots.plane.y_range)],
    solid: [isUneven(form) ? 0 : 1],
  };
}

function drawCurves(which, run) {
  for (const name of ["train_loss", "test_accuracy"]) {
    const y = measured[name][run].map((value) => value ?? NaN);
    source(name, which).data = {x: y.map((_, i) => i + 1), y};
  }
  const losses = ["baseline", "nearest"].flatMap((each) => source("train_loss", each).data.y).filter((y) => y > 0);
  plots.train_loss.y_range.setv({start: Math.min(1, ...losses) / 1.1, end: 1.2 * Math.max(3, ...losses)});
}

function copyable(label, text) {
  const box = element("div", "", "command"), button = element("button", "copy", "copy");
  const shown = element("pre", text, text.includes("\n") ? "code" : "");
  if (shown.className) shown.tabIndex = 0;  // it may have to be scrolled
  button.type = "button";
  button.setAttribute("aria-label", `copy: ${label}`);
  box.append(shown, button);
  return [element("h3", label), box];
}

function showRepairs() {
  const found = repairs(setting), scale = setting.inputScale;
  const heading = scale === 1 ? "What makes it the baseline" : `What makes it the baseline with inputs × ${general(scale)}`;
  byId("repairs-heading").textContent = heading;
  byId("repairs-note").textContent = found.length ? "Exactly; to copy. What is not named keeps its default." : "Nothing has to: it is the baseline.";
  const shown = found.map(([label, command]) => [`This project's run, ${label}`, command]);
  if (scale !== 1) shown.push(["PyTorch: parameter groups for any model with these inputs", torchCode(scale)],
    ["optax: the same for JAX", optaxCode(scale)]);
  byId("repairs").replaceChildren(...shown.flatMap(([label, text]) => copyable(label, text)));
}

// ---- what the reader does

function listen(slider) {
  const range = byId(slider.id), text = byId(`${slider.id}-number`);
  range.addEventListener("input", () => {
    const power = Number(range.value);
    change(slider, slider.zero && power <= slider.low ? 0 : short(10 ** power));
  });
  text.addEventListener("change", () => {
    const value = text.value.trim() ? Number(text.value) : NaN;
    if (allowed(value, slider)) change(slider, value);
    else text.setAttribute("aria-invalid", "true");
  });
}

function restore() {
  const there = fromAddress(location.hash);
  if (there && !equalSettings(there, setting)) {
    setting = there;
    show();
  }
}

whenDrawn(() => {
  for (const document of Bokeh.documents) for (const plot of document.roots()) plots[plot.name] = plot;
  sliders.forEach(listen);
  document.querySelectorAll("button.case").forEach((button) => button.addEventListener("click", () => {
    setting = structuredClone(cases.find(({number}) => number === Number(button.value)).setting);
    show();
  }));
  addEventListener("hashchange", restore);
  setting = fromAddress(location.hash) ?? setting;
  drawCurves("baseline", nearest(canonical(BASELINE_SETTING)));
  show();
});

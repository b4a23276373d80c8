// The law for the question's network (two layers, no biases, SGD): which run a setting really is,
// and what repairs it. As jaxmlp/law has it, to the last digit: tests/test_law_js.py compares them.
//
// A setting is {inputScale, initScale: [a1, a2], learningRate: [e1, e2], weightDecay: [d1, d2]}.
"use strict";

const RATE = 0.02, DECAY = 1e-4;
const BASELINE_SETTING = {inputScale: 1, initScale: [1, 1], learningRate: [RATE, RATE], weightDecay: [DECAY, DECAY]};
const BASELINE = "the baseline: inputs × 1, default scales, rates and decays";
const SAME_WITHIN = 2 ** -41;  // settings are floats, each rounded once
const FLOAT32_MAX = 3.4028234663852886e38, FLOAT32_MIN = 1.1754943508222875e-38;
const LAYERS = [0, 1];

// ---- exact arithmetic

// A positive float as the fraction of whole numbers that it holds.
function fraction(value) {
  const bits = new DataView(new ArrayBuffer(8));
  bits.setFloat64(0, value);
  const word = bits.getBigUint64(0), exponent = Number(word >> 52n);
  const mantissa = (word & ((1n << 52n) - 1n)) | (exponent ? 1n << 52n : 0n);
  const power = BigInt((exponent || 1) - 1075);
  return power < 0n ? [mantissa, 1n << -power] : [mantissa << power, 1n];
}

const bitLength = (whole) => whole.toString(2).length;

// The largest whole number whose index-th power is not above `whole`: Newton from above.
function wholeRoot(whole, index) {
  if (index === 1n) return whole;
  let root = 1n << (BigInt(bitLength(whole)) / index + 1n);
  for (;;) {
    const lower = ((index - 1n) * root + whole / root ** (index - 1n)) / index;
    if (lower >= root) return root;
    root = lower;
  }
}

// The float that is nearest to (∏ value^power)^(1/index), for positive values, whole powers and
// results that are neither too large nor too small for a float of full precision.
function root(powers, index = 1) {
  let above = 1n, below = 1n;
  for (const [value, power] of powers) {
    const [numerator, denominator] = fraction(value), size = BigInt(Math.abs(power));
    above *= (power > 0 ? numerator : denominator) ** size;
    below *= (power > 0 ? denominator : numerator) ** size;
  }
  // Shifted so that the root has 63 bits at least: ten more than a float.
  const shift = 64 - Math.floor((bitLength(above) - bitLength(below)) / index);
  const by = BigInt(shift * index);
  if (by > 0n) above <<= by; else below <<= -by;
  const whole = above / below, found = wholeRoot(whole, BigInt(index));
  const inexact = above % below !== 0n || found ** BigInt(index) !== whole;
  // An inexact root lies between two whole numbers; half-way stands for all that is between them.
  const doubled = Number(2n * found + (inexact ? 1n : 0n));
  return shift >= 0 ? doubled / Number(2n << BigInt(shift)) : doubled * Number(1n << BigInt(-shift)) / 2;
}

// ---- numbers as Python writes them

// The first so many digits of a float, rounded, and of which power of ten the first is. A tie goes
// to the even digit, as in Python; toPrecision rounds it up.
function rounded(value, count) {
  const [mantissa, power] = value.toExponential(100).split("e"), all = mantissa.replace(".", "");
  const head = BigInt(all.slice(0, count)), rest = all.slice(count), half = "5".padEnd(rest.length, "0");
  const up = rest > half || (rest === half && head % 2n === 1n);
  const digits = String(head + (up ? 1n : 0n)).padStart(count, "0");
  return {digits: digits.slice(0, count), power: Number(power) + digits.length - count};
}

function layOut(digits, power, scientific) {
  if (scientific) {
    const point = digits.length > 1 ? "." : "";
    return `${digits[0]}${point}${digits.slice(1)}e${power < 0 ? "-" : "+"}${String(Math.abs(power)).padStart(2, "0")}`;
  }
  if (power < 0) return `0.${"0".repeat(-power - 1)}${digits}`;
  const whole = digits.slice(0, power + 1).padEnd(power + 1, "0"), rest = digits.slice(power + 1);
  return rest ? `${whole}.${rest}` : whole;
}

// Python's f"{value:.{count}g}", for a value that is not negative.
function general(value, count = 6) {
  const {digits, power} = rounded(value, count);
  return layOut(digits.replace(/0+$/, ""), power, power < -4 || power >= count);
}

// Python's repr(value), for a value that is not negative.
function repr(value) {
  const [mantissa, power] = value.toExponential().split("e");
  const scientific = power < -4 || power >= 16;
  const text = layOut(mantissa.replace(".", ""), Number(power), scientific);
  return scientific || text.includes(".") ? text : `${text}.0`;
}

// Python's f"{value:,.0f}".
function grouped(value) {
  const below = Math.floor(value), half = value - below === 0.5;
  const whole = half ? below + (below % 2) : Math.round(value);
  return String(whole).replace(/\B(?=(\d{3})+$)/g, ",");
}

// ---- which run it is

// R, κ and δ: the run with inputs × 1 and one learning rate that trains identically.
function canonical(setting) {
  return {
    learningRate: root(ofRate(setting), 2),
    initScale: LAYERS.map((layer) => root(ofScale(setting, layer), 4)),
    decay: LAYERS.map((layer) => setting.weightDecay[layer] ? root(ofDecay(setting, layer)) : 0),
  };
}

// As powers of the settings: R², κ⁴ and δ.
const ofRate = ({inputScale: s, learningRate: [e1, e2]}) => [[s, 2], [e1, 1], [e2, 1]];
const ofScale = ({inputScale: s, initScale, learningRate: rate}, layer) =>
  [[initScale[layer], 4], [s, 2], [rate[1 - layer], 1], [rate[layer], -1]];
const ofDecay = ({learningRate, weightDecay}, layer) => [[learningRate[layer], 1], [weightDecay[layer], 1]];

const inverse = (powers) => powers.map(([value, power]) => [value, -power]);

// How many times as large as the baseline's each canonical number is.
function ratios(setting) {
  const beside = (powers, index, layer) =>
    root([...powers(setting, layer), ...inverse(powers(BASELINE_SETTING, layer))], index);
  return {
    learningRate: [beside(ofRate, 2)],
    initScale: LAYERS.map((layer) => beside(ofScale, 4, layer)),
    decay: LAYERS.map((layer) => setting.weightDecay[layer] ? beside(ofDecay, 1, layer) : 0),
  };
}

const differs = (ratio) => !(Math.abs(ratio - 1) <= SAME_WITHIN);

function frozen(setting) {
  const layer = setting.learningRate.indexOf(0) + 1;
  return layer && `layer ${layer} has learning rate 0: a network with a frozen layer has no effective ` +
    "learning rate; give every layer one above 0";
}

function isBaseline(setting) {
  return !frozen(setting) && !Object.values(ratios(setting)).flat().some(differs);
}

function equalSettings(a, b) {
  return JSON.stringify(Object.keys(BASELINE_SETTING).map((name) => a[name])) ===
    JSON.stringify(Object.keys(BASELINE_SETTING).map((name) => b[name]));
}

// The sentence that jaxmlp explain begins with.
function whichRun(setting) {
  if (frozen(setting)) return `No canonical form: ${frozen(setting)}.`;
  if (isBaseline(setting)) {
    return `It is${equalSettings(setting, BASELINE_SETTING) ? "" : ", step for step,"} ${BASELINE}.`;
  }
  const form = canonical(setting);
  const scales = alike(form.initScale.map((value) => general(value, 3)));
  const decays = alike(form.decay.map((value) => general(value / form.learningRate, 3)));
  return `It ${setting.inputScale === 1 ? "is" : "is, step for step,"} the run with inputs × 1, ` +
    `learning rate ${general(form.learningRate, 3)} for every layer, initial weights × ${scales} and ` +
    `weight decay ${decays}. Beside the baseline: ${differenceInWords(ratios(setting))}.`;
}

const alike = (values) => values.every((value) => value === values[0]) ? values[0] : values.join(", ");

const PHRASES = {  // what is said where the two agree, and of what they differ in
  learningRate: ["same effective learning rate", "effective learning rate"],
  initScale: ["initial weights the same", "initial weights"],
  decay: ["", "decay"],
};

function differenceInWords(between) {
  const parts = [];
  for (const [kind, [agreement, phrase]] of Object.entries(PHRASES)) {
    const wrong = between[kind].map((ratio, layer) => ({ratio, layer})).filter(({ratio}) => differs(ratio));
    const texts = wrong.map(({ratio}) => times(ratio));
    const everywhere = wrong.length === between[kind].length && new Set(texts).size === 1;
    if (everywhere) parts.push(`${phrase} ${texts[0]}`);
    else if (wrong.length) parts.push(`${phrase}: ${wrong.map(({layer}, i) => `layer ${layer + 1} ${texts[i]}`).join(", ")}`);
    else if (agreement) parts.push(agreement);
  }
  return parts.join("; ");
}

function times(ratio) {
  if (ratio === 0) return "absent";
  const direction = ratio > 1 ? "large" : "small", off = Math.abs(ratio - 1);
  if (off < 0.005) return `${general(off, 1)} of itself too ${direction}`;
  const size = Math.max(ratio, 1 / ratio);
  return `${size >= 1000 && size < 1e7 ? grouped(size) : general(size, 3)} times too ${direction}`;
}

// ---- what repairs it

// The baseline's settings for inputs × s: the first layer alone makes up for them, or both alike.
const SCHEMES = {
  firstLayer: (s) => ({
    inputScale: s, initScale: [root([[s, -1]]), 1],
    learningRate: [root([[RATE, 1], [s, -2]]), RATE], weightDecay: [root([[DECAY, 1], [s, 2]]), DECAY],
  }),
  uniform: (s) => {
    const scale = root([[s, -1]], 2), rate = root([[RATE, 1], [s, -1]]), decay = root([[DECAY, 1], [s, 1]]);
    return {inputScale: s, initScale: [scale, scale], learningRate: [rate, rate], weightDecay: [decay, decay]};
  },
};

// Label and command for each exact repair, or why there is none; empty where nothing is wrong.
function repairs(setting) {
  if (isBaseline(setting)) return [];
  const wanted = setting.inputScale === 1 ? [["its own settings", "uniform"]]
    : [["first layer alone", "firstLayer"], ["all layers alike", "uniform"]];
  return wanted.map(([label, scheme]) => {
    const repaired = SCHEMES[scheme](setting.inputScale), refusal = outOfRange(repaired);
    return [label, refusal ? `impossible: ${refusal}` : ["python scripts/run_jax.py", ...flags(repaired)].join(" ")];
  });
}

const FLAGS = {initScale: "init-scale", inputScale: "input-scale", learningRate: "learning-rate", weightDecay: "weight-decay"};

// The words of the command line that ask for a setting: what differs from the defaults, exactly.
function flags(setting) {
  return Object.entries(FLAGS).flatMap(([name, flag]) => {
    const values = [...new Set([setting[name]].flat())], usual = [BASELINE_SETTING[name]].flat()[0];
    return values.length === 1 && values[0] === usual ? [] : [`--${flag}`, ...values.map(word)];
  });
}

const word = (value) => Number.isInteger(value) && value < 1e6 ? String(value) : repr(value);

const inFloat32 = (value) => value >= FLOAT32_MIN && value <= FLOAT32_MAX;

function outOfRange(setting) {
  for (const [name, flag] of Object.entries(FLAGS)) {
    const wrong = [setting[name]].flat().find((value) => !inFloat32(value));
    const zero = name === "learningRate" || name === "weightDecay" ? "0 or " : "";
    if (wrong !== undefined) {
      return `${flag.replace("-", "_")} ${repr(wrong)} must be ${zero}a positive number that float32 can hold ` +
        "(1.2e-38 to 3.4e38)";
    }
  }
  return "";
}

// ---- code for any model with scaled inputs, at the question's rate, momentum and decay

function code(program, scale) {
  const {initScale: [init], learningRate: [rate], weightDecay: [decay]} = SCHEMES.firstLayer(scale);
  for (const [name, value] of Object.entries({init_scale: init, learning_rate: rate, weight_decay: decay})) {
    if (!inFloat32(value)) return `impossible: ${name} would be ${general(value, 3)}, which float32 cannot hold`;
  }
  return program(general(scale), repr(init), repr(rate), repr(decay));
}

const torchCode = (scale) => code((by, init, rate, decay) => `import torch

FIRST = next(iter(dict(model.named_parameters())))  # check it
# FIRST names the weight that multiplies the inputs, now × ${by}; its bias stays.
first = dict(model.named_parameters())[FIRST]
with torch.no_grad():  # once, after the initialisation
    first.mul_(${init})
others = [parameter for parameter in model.parameters() if parameter is not first]
groups = [
    {"params": [first], "lr": ${rate}, "weight_decay": ${decay}},
    {"params": others, "lr": ${repr(RATE)}, "weight_decay": ${repr(DECAY)}},
]
optimizer = torch.optim.SGD(groups, momentum=0.9, dampening=0.0, nesterov=False)
`, scale);

const optaxChain = (rate, decay) => `optax.chain(
            optax.add_decayed_weights(${decay}),
            optax.trace(0.9, nesterov=False),
            optax.scale(-${rate}),
        )`;

const optaxCode = (scale) => code((by, init, rate, decay) => `import jax
import optax

FIRST = 'path/of/the/first/weight'  # of the weight that meets the inputs, now × ${by}


def is_first(path):
    return jax.tree_util.keystr(path, simple=True, separator="/") == FIRST


def labels(params):
    """Of each tensor: which settings it gets."""
    found = jax.tree_util.tree_map_with_path(
        lambda path, _: "first" if is_first(path) else "other", params
    )
    assert jax.tree.leaves(found).count("first") == 1, f"{FIRST} is no tensor of the parameters"
    return found


# once, after the initialisation:
params = jax.tree_util.tree_map_with_path(
    lambda path, leaf: leaf * ${init} if is_first(path) else leaf, params
)
optimizer = optax.multi_transform(
    {
        "first": ${optaxChain(rate, decay)},
        "other": ${optaxChain(repr(RATE), repr(DECAY))},
    },
    labels,
)
`, scale);

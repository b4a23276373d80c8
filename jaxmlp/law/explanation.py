"""In words: which run a run really is, what course it will take, and what would repair it."""

import dataclasses
import math
import shlex
from collections.abc import Sequence
from typing import Any

from jaxmlp import question
from jaxmlp.experiment import NETWORK, SCALED, Experiment
from jaxmlp.law import emission
from jaxmlp.law.canonical import canonical, exact_invariants
from jaxmlp.law.difference import difference, in_words
from jaxmlp.law.repair import repair
from jaxmlp.law.rules import power
from jaxmlp.law.transport import transport
from jaxmlp.question import ATTEMPTS

NO_BREAK = "\N{NO-BREAK SPACE}%"  # a percent sign stays with its number
BASELINE = "the baseline: inputs × 1, default scales, rates and decays"


def same_as(experiment: Experiment) -> str:
    """What scaled inputs are, in terms of the first layer alone."""
    scale = f"{experiment.input_scale:g}"

    def moved(setting: str) -> str:
        exponent = power(experiment.optimizer, setting)
        return f"{'×' if exponent > 0 else '÷'} {scale}{'²' * (abs(exponent) == 2)}"

    return (
        f"Inputs × {scale} are the same as inputs × 1 with first-layer weights × {scale} and a "
        f"first-layer learning rate {moved('learning_rate')} (and its decay "
        f"{moved('weight_decay')}): the first layer's outputs and its gradients both grow by "
        f"{scale}."
    )


def why(experiment: Experiment) -> list[str]:
    """Paragraphs: which run it is, and where it is one of the question's, why it went so."""
    found = [which_run(experiment, baseline(experiment))]
    if experiment.input_scale != 1:
        found.insert(0, f"Why: {same_as(experiment)}")
    case = question.name(experiment)
    told = experiment.epochs == Experiment().epochs  # what is told is of so many
    if case in ATTEMPTS and experiment.input_scale == question.SCALE and told:
        found.append(ATTEMPTS[case].reason)
    return found


def baseline(experiment: Experiment) -> Experiment:
    """The same experiment with unscaled inputs and default scales, rates and decays."""
    default = Experiment(optimizer=experiment.optimizer)
    return dataclasses.replace(experiment, **{name: getattr(default, name) for name in SCALED})


def target(experiment: Experiment, against: Experiment) -> Experiment:
    """`against`'s scales, rates and decays with everything else as in `experiment`.

    Raises:
        ValueError: the network or the optimizer is another one.
    """
    for name in NETWORK:
        mine, other = getattr(experiment, name), getattr(against, name)
        if mine != other:
            raise ValueError(
                f"{name} is {mine} here and {other} there; runs of different networks or "
                "optimizers cannot be turned into each other"
            )
    return dataclasses.replace(experiment, **{name: getattr(against, name) for name in SCALED})


def canonical_section(experiment: Experiment) -> dict[str, Any] | None:
    """The record's section `canonical`; None for a network with a frozen layer."""
    try:
        form = canonical(experiment)._asdict()
    except ValueError:
        return None
    bias = form.pop("bias")
    return {**form, "bias": bias and bias._asdict()}


def which_run(experiment: Experiment, against: Experiment, other: str = BASELINE) -> str:
    """What the run is, beside another.

    Args:
        other: what the other one is called.
    """
    try:
        found = difference(experiment, against)
        form = canonical(experiment)
    except ValueError as error:
        return f"No canonical form: {error}."
    if found.same:
        return f"It is {other}." if experiment == against else f"It is, step for step, {other}."
    scales = [f"{value:.3g}" for value in form.init_scale]
    start = scales[0] if len(set(scales)) == 1 else ", ".join(scales)
    decay = [f"{value / form.learning_rate:.3g}" for value in form.decay]
    shrinks = decay[0] if len(set(decay)) == 1 else ", ".join(decay)
    more = [*["eps"] * (form.eps is not None), *["biases"] * experiment.bias]
    rest = f" ({' and '.join(more)} moved along)" if more else ""
    what = "is" if experiment.input_scale == 1 else "is, step for step,"
    return (
        f"It {what} the run with inputs × 1, learning rate {form.learning_rate:.3g} for every "
        f"layer, initial weights × {start} and weight decay {shrinks}{rest}. Beside "
        f"{other.partition(':')[0]}: {in_words(found, experiment.layers)}."
    )


def forecast(known: dict[str, Any]) -> str:
    """The forecast in words, from the record's section `forecast`."""
    ratio, fails, diverges = known["ratio"], known["fails"], known["diverges"]
    said = {
        "fails": f"Fails: it diverges and does not recover, with probability {_percent(fails)}"
        + " (foretold from 30 % on)".replace(" %", NO_BREAK) * (fails < 0.5),
        "recovers": (
            f"Recovers: it diverges (probability {_percent(diverges)}) and trains on "
            f"(it fails with probability {_percent(fails)})"
        ),
        "stable": f"Stable (it diverges with probability {_percent(diverges)})",
    }[known["course"]]
    if math.isnan(ratio):
        return f"{said}. The curvature at the start is not finite."
    return (
        f"{said}. Curvature times (full) rates at the start: S = {number(known['sharpness'])}, "
        f"{number(ratio)} times the limit of {known['limit']:.3g}."
    )


def number(value: float) -> str:
    """A size for reading: two digits, or whole."""
    return f"{value:,.0f}" if 100 <= value < 1e7 else f"{value:.2g}"


def _percent(probability: float) -> str:
    if 0 < probability < 0.01:
        return f"below 1{NO_BREAK}"
    if 0.99 < probability < 1:
        return f"above 99{NO_BREAK}"
    return f"{probability:.0%}".replace("%", NO_BREAK)


def same(experiment: Experiment, against: Experiment) -> bool:
    """Whether the two are one run; False also where a frozen layer leaves nothing to compare."""
    try:
        return difference(experiment, against).same
    except ValueError:
        return False


FEW = 4  # knobs that are worth naming
SCRIPT = ("python", "scripts/run_jax.py")  # what is pasted starts so


def exact_repairs(
    experiment: Experiment, against: Experiment, again: Sequence[str] = SCRIPT
) -> list[tuple[str, str]]:
    """Label and command: `against` at the inputs of `experiment`, by each scheme; or why not.

    Empty where nothing is to be repaired.

    Args:
        against: of the same network and optimizer.
        again: the command's words before the settings.
    """
    if same(experiment, against):
        return []
    schemes = {"first-layer": "first layer alone", "uniform": "all layers alike"}
    if experiment.input_scale == against.input_scale:
        schemes = {"uniform": "its own settings"}
    return [
        (label, _moved(experiment, against, scheme, again)) for scheme, label in schemes.items()
    ]


def _moved(experiment: Experiment, against: Experiment, scheme: str, again: Sequence[str]) -> str:
    """The command that runs `against` at the input scale of `experiment`."""
    try:
        moved = transport(against, experiment.input_scale, scheme=scheme)
    except ValueError as error:
        return f"impossible: {error}"
    return shlex.join([*again, *emission.as_flags(moved)])


def single_knobs(experiment: Experiment, to: Experiment) -> list[tuple[str, str]]:
    """Label and text: what the commonest knobs can do, each alone.

    Args:
        to: differs from `experiment` in scales, rates, decays and eps only (`target`).
    """
    layers = range(1, experiment.layers + 1)
    rows = []
    for label, name in (
        ("learning rates alone", "learning_rate"),
        ("initial scales alone", "init_scale"),
    ):
        found = repair(experiment, to, [f"{name}:{layer}" for layer in layers])
        factors = (f"{_knob(knob)} × {float(by):.4g}" for knob, by in found.factors.items())
        text = f"possible: {', '.join(factors)}"
        if not found.experiment:
            missing = [_knob(knob) for knob in found.missing]
            needed = f" It needs as well: {', '.join(missing)}." if missing else ""
            if len(missing) > FEW:
                needed = " It needs most of the other settings as well."
            text = f"impossible: {found.obstacles[0]}.{needed}"
        rows.append((label, text))
    return rows


def _knob(knob: str) -> str:
    """Such as `learning rate of layer 1`, or `weight decays` of all layers."""
    name, _, layer = knob.partition(":")
    words = name.removeprefix("bias_").replace("init_scale", "initial_scale").replace("_", " ")
    words += "s" * (not layer and words != "eps")
    return words + " of the biases" * name.startswith("bias_") + f" of layer {layer}" * bool(layer)


def table(experiment: Experiment, against: Experiment) -> list[tuple[str, str, str, str]]:
    """Rows of name, this run's, the other's, and their ratio; empty if nothing can be compared."""
    try:
        mine, other = (exact_invariants(each) for each in (experiment, against))
        pairs = {name: (float(mine[name]), float(other[name])) for name in mine}
    except (ValueError, OverflowError):
        return []
    rows = []
    for name in sorted(pairs, key=lambda each: list(LABELS).index(each.rstrip("0123456789"))):
        mark = name.rstrip("0123456789")
        layer = name[len(mark) :]
        label = f"{name}  {LABELS[mark]}" + (f", layer {layer}" if layer else "")
        a, b = pairs[name]
        ratio = "1" if a == b else f"{a / b:.4g}" if b else "–"
        rows.append((label, f"{a:.4g}", f"{b:.4g}", ratio))
    return rows


LABELS = {
    "R": "effective learning rate",
    "κ": "effective initial scale",
    "δ": "effective decay, R × weight decay",
    "ε": "effective eps",
    "Rb": "effective learning rate of biases",
    "κb": "effective initial scale of biases",
    "δb": "effective decay of biases",
    "εb": "effective eps of biases",
}

"""What would turn a run into another: commands to paste, and what single knobs can do."""

import dataclasses
import shlex
from collections.abc import Sequence

from jaxmlp.experiment import NETWORK, SCALED, Experiment
from jaxmlp.law.difference import same
from jaxmlp.law.emission import SCRIPT, as_flags
from jaxmlp.law.repair import repair
from jaxmlp.law.transport import transport

KNOBS_WORTH_NAMING = 4  # assumed: a longer list is no advice


def target(experiment: Experiment, against: Experiment) -> Experiment:
    """`against`'s scales, rates and decays with everything else as in `experiment`.

    Raises:
        ValueError: the network or the optimizer is another one.
    """
    for name in NETWORK:
        here, there = getattr(experiment, name), getattr(against, name)
        if here != there:
            raise ValueError(
                f"{name} is {here} here and {there} there; runs of different networks or "
                "optimizers cannot be turned into each other"
            )
    return dataclasses.replace(experiment, **{name: getattr(against, name) for name in SCALED})


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
        (label, _command(against, experiment.input_scale, scheme, again))
        for scheme, label in schemes.items()
    ]


def _command(against: Experiment, input_scale: float, scheme: str, again: Sequence[str]) -> str:
    """The command that runs `against` at another input scale."""
    try:
        moved = transport(against, input_scale, scheme=scheme)
    except ValueError as error:
        return f"impossible: {error}"
    return shlex.join([*again, *as_flags(moved)])


def single_knobs(experiment: Experiment, to: Experiment) -> list[tuple[str, str]]:
    """Label and text: what the commonest knobs can do, each alone.

    Args:
        to: differs from `experiment` in scales, rates, decays and eps only (`target`).

    Raises:
        ValueError: a layer has learning rate 0; or the repaired settings leave float32's range.
    """
    return [
        ("learning rates alone", _one_setting(experiment, to, "learning_rate")),
        ("initial scales alone", _one_setting(experiment, to, "init_scale")),
    ]


def _one_setting(experiment: Experiment, to: Experiment, setting: str) -> str:
    """What a setting can do if each layer's may be moved and nothing else."""
    allow = [f"{setting}:{layer + 1}" for layer in range(experiment.layers)]
    repaired = repair(experiment, to, allow)
    if repaired.experiment:
        factors = (f"{in_words(knob)} × {float(by):.4g}" for knob, by in repaired.factors.items())
        return f"possible: {', '.join(factors)}"
    if len(repaired.missing) > KNOBS_WORTH_NAMING:
        needed = " It needs most of the other settings as well."
    elif repaired.missing:
        needed = f" It needs as well: {', '.join(map(in_words, repaired.missing))}."
    else:
        needed = ""
    return f"impossible: {repaired.obstacles[0]}.{needed}"


def in_words(knob: str) -> str:
    """Such as `learning rate of layer 1`, or `weight decays` of all layers."""
    name, _, layer = knob.partition(":")
    words = name.removeprefix("bias_").replace("init_scale", "initial_scale").replace("_", " ")
    if not layer and words != "eps":
        words += "s"
    if name.startswith("bias_"):
        words += " of the biases"
    return f"{words} of layer {layer}" if layer else words

"""The exact repair of a run, given only the settings that may be moved; or the proof of none."""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from jaxmlp.experiment import PER_TENSOR, Experiment, full_name
from jaxmlp.law.difference import Difference, difference
from jaxmlp.law.invariants import (
    Parameter,
    as_tensors,
    exact_invariants,
    full_setting,
    invariants,
    with_settings,
)
from jaxmlp.law.knobs import System, solve
from jaxmlp.law.surd import Surd, rounded, surd
from jaxmlp.law.tensors import INPUT, Setting


class Repair(NamedTuple):
    """The exact repair, or the proof that the allowed knobs cannot do it."""

    experiment: Experiment | None  # repaired; None if impossible
    factors: dict[str, Surd]  # by knob: what to multiply it by; knobs left alone are not listed
    obstacles: tuple[str, ...]  # each: what stays wrong whatever the allowed knobs do
    missing: tuple[str, ...]  # further knobs, all needed, that would make it possible


def knobs(experiment: Experiment) -> tuple[str, ...]:
    """All names that `repair` knows for this experiment: whole settings and single layers'."""
    names = ["input_scale"]
    for tensor, name in itertools.product(experiment.tensors, PER_TENSOR):
        if getattr(experiment, name) is not None:
            full = full_name(tensor, name)
            names += [full, *(f"{full}:{layer + 1}" for layer in range(experiment.layers))]
    return tuple(names)


def repair(experiment: Experiment, to: Experiment, allow: Sequence[str]) -> Repair:
    """What to multiply the allowed knobs by so that `experiment` becomes the run that `to` is.

    Of several solutions the knobs named first are used and those named last are left alone.

    Args:
        allow: names as `knobs` lists them: "learning_rate" moves all layers by one factor,
            "learning_rate:1" the first layer's. Biases follow their layer's weights unless the
            experiment gives them settings of their own.

    Raises:
        ValueError: a knob is not known; the two differ in what no knob moves; a layer has learning
            rate 0; or the repaired settings leave float32's range.
    """
    every_knob = knobs(experiment)
    for knob in allow:
        if knob not in every_knob:
            raise ValueError(f"knob {knob!r} is not known; choose from {', '.join(every_knob)}")
    between = difference(experiment, to)
    if between.settings:
        name, (ours, theirs) = next(iter(between.settings.items()))
        raise ValueError(f"{name} is {ours} and should be {theirs}; no rescaling alters that")
    if zero := _zero_in_one(between):
        return Repair(None, {}, zero, ())
    system = _system(experiment, to, every_knob)
    further = sorted(every_knob[1:], key=lambda knob: ":" in knob)  # whole settings before layers'
    factors, obstacles, missing = solve(system, allow, further)
    if obstacles:
        return Repair(None, {}, obstacles, missing)
    return Repair(_turned(experiment, system, factors), factors, (), ())


# ---- the system


def _system(experiment: Experiment, to: Experiment, every_knob: Sequence[str]) -> System:
    rows, values = invariants(experiment), exact_invariants(experiment)
    ours, theirs = as_tensors(experiment).settings, as_tensors(to).settings
    change: dict[Setting, Surd] = {}
    for setting in {setting for row in rows.values() for setting in row}:
        before, after = ours[setting], theirs[setting]
        if before and after and before != after:
            change[setting] = surd(after) / before
    # Earlier rows are solved first, so that what is left over speaks of them.
    order = sorted(rows, key=lambda invariant: invariant.rank)
    nonzero = {invariant: rows[invariant] for invariant in order if values[invariant]}
    return System(nonzero, change, {knob: _settings_of(experiment, knob) for knob in every_knob})


def _settings_of(experiment: Experiment, knob: str) -> set[Setting]:
    """The settings that a knob multiplies."""
    full, _, number = knob.partition(":")
    if full == "input_scale":
        return {Setting("init_scale", INPUT)}
    kind, name = ("bias", full[5:]) if full.startswith("bias_") else ("kernel", full)
    kinds = [kind]
    if kind == "kernel" and experiment.bias and getattr(experiment, f"bias_{name}") is None:
        kinds.append("bias")  # it follows
    layers = [int(number) - 1] if number else range(experiment.layers)
    return {Setting(name, Parameter(kind, layer)) for kind in kinds for layer in layers}


def _zero_in_one(between: Difference) -> tuple[str, ...]:
    """The obstacles that no factor removes: invariants that are 0 in one run alone."""
    return tuple(
        f"{invariant.in_full} is 0 in one of the two, and no factor alters that"
        for invariant, ratio in between.ratios.items()
        if ratio in (0, math.inf)
    )


# ---- the repaired run


def _turned(experiment: Experiment, system: System, factors: Mapping[str, Surd]) -> Experiment:
    """The experiment with each knob's settings multiplied by its factor."""
    exact: dict[Setting, Surd] = {}
    for knob, factor in factors.items():
        for setting in system.knobs[knob]:
            exact[setting] = exact.get(setting, surd(1)) * factor
    before = as_tensors(experiment).settings
    return with_settings(
        experiment,
        {
            setting: rounded(full_setting(setting), factor * before[setting])
            if before[setting]
            else 0.0
            for setting, factor in exact.items()
        },
    )

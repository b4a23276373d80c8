"""The question's cases as the explorer shows them: a button, a reason, a place in the plane."""

import math
from typing import Any, NamedTuple

from jaxmlp import question
from jaxmlp.experiment import Experiment
from jaxmlp.law.canonical import canonical

BASELINE_SAYS = (
    "What the question starts from. Every other setting is told by how it differs from this."
)
ALONE = {  # reasons that do not read on from another's
    "scaled-lr1": "The effective rate is 16 times too large, as in 6, and the first layer also "
    "starts 64, the second 4 times too large.",
}
REPAIRS = {
    "repair-first-layer": (
        "first layer alone",
        "R, κ1, κ2, δ1 and δ2 are the baseline's, and so is every loss. The first layer "
        "undoes the inputs: its weights ÷ 255, its gradients grow by 255, so its rate ÷ 255² and "
        "its decay × 255². The second layer never notices.",
    ),
    "repair-uniform": (
        "both layers alike",
        "R, κ1, κ2, δ1 and δ2 are the baseline's, and so is every loss. Each layer takes "
        "√255 of the 255: both inits ÷ 15.97, both rates ÷ 255, both decays × 255. This is why "
        "both layers seemed to need it.",
    ),
}


class Case(NamedTuple):
    """One of the question's cases: a button, and a number in the plane."""

    number: int
    group: str
    label: str
    ended: str  # how
    reason: str
    setting: dict[str, Any]  # as the script has it
    scale: float  # √(κ1·κ2)
    rate: float  # R
    uneven: bool  # κ1 and κ2 differ


def question_cases() -> list[Case]:
    """The baseline, what was tried, and the two repairs, in the order of the buttons."""
    cases = []
    for number, name in enumerate(question.CASES, start=1):
        experiment = Experiment(**question.settings(name))
        form = canonical(experiment)
        first, second = form.init_scale
        setting = as_script(experiment)
        place = math.sqrt(first * second), form.learning_rate, not alike(first, second)
        cases.append(Case(number, *_told(name), setting, *place))
    return cases


def _told(name: str) -> tuple[str, str, str, str]:
    """A case's group, label, end and reason."""
    if attempt := question.ATTEMPTS.get(name):
        return (
            "Tried at inputs × 255:",
            attempt.what,
            attempt.ended,
            ALONE.get(name, attempt.reason),
        )
    if name in REPAIRS:
        label, reason = REPAIRS[name]
        return "Exact at inputs × 255:", label, "Trained, as the baseline", reason
    return "Inputs × 1:", name, "Trained", BASELINE_SAYS


def as_script(experiment: Experiment) -> dict[str, Any]:
    """The settings that the page moves, by the names that law.js has for them."""
    return {
        "inputScale": experiment.input_scale,
        "initScale": experiment.per_layer("init_scale"),
        "learningRate": experiment.per_layer("learning_rate"),
        "weightDecay": experiment.per_layer("weight_decay"),
    }


def alike(a: float, b: float) -> bool:
    return math.isclose(a, b, rel_tol=1e-9)

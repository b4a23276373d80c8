"""The question's cases by name: what its owner changed after multiplying the inputs by s."""

import math
from typing import Any, NamedTuple

from jaxmlp.experiment import Experiment

SCALE = 255.0  # the question's: pixels in [0, 255] where they had been in [0, 1]
RATE = 0.02
DECAY = 1e-4

CASES = {
    "baseline": "nothing changed, inputs x 1",
    "scaled": "inputs x s",
    "scaled-lr": "inputs x s, both learning rates / s",
    "scaled-lr-init": "inputs x s, both learning rates / s, both inits / s",
    "scaled-lr-init1": "inputs x s, both learning rates / s, first init / s",
    "scaled-lr1-init1": "inputs x s, first learning rate / s, first init / s",
    "scaled-lr1": "inputs x s, first learning rate / s",
    "scaled-lrsq-init1": "inputs x s, both learning rates / s^2, first init / s",
    "repair-first-layer": "inputs x s; first layer: init / s, rate / s^2, decay x s^2",
    "repair-uniform": "inputs x s; both layers: init / sqrt(s), rate / s, decay x s",
}


def settings(case: str, input_scale: float | None = None) -> dict[str, Any]:
    """The Experiment settings of one case, for the question's two layers (docs/why.md, section 3).

    Args:
        case: a name from CASES.
        input_scale: s; without it 255, and 1 for the baseline.

    Raises:
        ValueError: the case is not known.
    """
    if case not in CASES:
        raise ValueError(f"case {case!r} is not known; choose from {', '.join(CASES)}")
    if input_scale is None:
        input_scale = 1.0 if case == "baseline" else SCALE
    Experiment(input_scale=input_scale)  # before it is divided by
    s, root = input_scale, math.sqrt(input_scale)
    changes: dict[str, dict[str, Any]] = {
        "baseline": {},
        "scaled": {},
        "scaled-lr": {"learning_rate": (RATE / s,)},
        "scaled-lr-init": {"learning_rate": (RATE / s,), "init_scale": (1 / s,)},
        "scaled-lr-init1": {"learning_rate": (RATE / s,), "init_scale": (1 / s, 1.0)},
        "scaled-lr1-init1": {"learning_rate": (RATE / s, RATE), "init_scale": (1 / s, 1.0)},
        "scaled-lr1": {"learning_rate": (RATE / s, RATE)},
        "scaled-lrsq-init1": {"learning_rate": (RATE / s**2,), "init_scale": (1 / s, 1.0)},
        "repair-first-layer": {
            "learning_rate": (RATE / s**2, RATE),
            "init_scale": (1 / s, 1.0),
            "weight_decay": (DECAY * s**2, DECAY),
        },
        "repair-uniform": {
            "learning_rate": (RATE / s,),
            "init_scale": (1 / root,),
            "weight_decay": (DECAY * s,),
        },
    }
    return {"input_scale": input_scale, **changes[case]}


def name(experiment: Experiment) -> str:
    """The case that `experiment` is, whatever its seed and length; "custom" if it is none."""
    for case in CASES:
        scale = 1.0 if case == "baseline" else SCALE
        same = Experiment(
            **settings(case, scale),
            seed=experiment.seed,
            epochs=experiment.epochs,
            train_size=experiment.train_size,
            precision=experiment.precision,
        )
        if same == experiment:
            return case
    return "custom"


class Attempt(NamedTuple):
    """What the question's owner tried with the inputs times 255, and what the law says to it."""

    what: str
    ended: str  # the outcome, and what else a reader would ask first
    reason: str


ATTEMPTS = {
    "scaled": Attempt(
        "nothing else changed",
        "Dead",
        "Effective rate 255 times, start 16 times too large. Pixels are never negative, so a "
        "step moves a unit's sum the same way on nearly every image; a step this long throws it so "
        "far below 0 that no image reaches it again. Without input it gets no gradient: dead for "
        "good.",
    ),
    "scaled-lr": Attempt(
        "both rates ÷ 255",
        "Trained, to 37 % instead of 49 %",
        "The effective rate is right again, the start still 16 "
        "times too large. The first steps overshoot and leave three units in four dead; the rest "
        "train. No learning rate can mend it: rates never alter κ1·κ2 = s × both init scales, "
        "which is 255 instead of 1.",
    ),
    "scaled-lr-init": Attempt(
        "both rates and both inits ÷ 255",
        "Trained",
        "κ1·κ2 is 1/255 now, the baseline started 16 times too small, which costs a short "
        "plateau and no more. It works by overshooting to the harmless side; exact is ÷ √255 "
        "(÷ 15.97) for each init, and decay × 255.",
    ),
    "scaled-lr-init1": Attempt(
        "both rates ÷ 255, first init ÷ 255",
        "Stalled or hardly trained",
        "κ1·κ2 is 1, as it should be, but split unevenly: first layer "
        "16 times too small, second 16 times too large, and with it the first layer's gradients. "
        "Exact with this init: first rate ÷ 255², second rate left alone, first decay × 255².",
    ),
    "scaled-lr1-init1": Attempt(
        "first rate ÷ 255, first init ÷ 255",
        "Dead",
        "The first layer's gradients grow by 255 and its weights shrink by 255, so its rate "
        "needs ÷ 255². It got ÷ 255: the effective rate is 16 times too large.",
    ),
    "scaled-lr1": Attempt(
        "first rate ÷ 255",
        "Stalled",
        "The same, and the first layer also starts 64, the second 4 times too large.",
    ),
    "scaled-lrsq-init1": Attempt(
        "both rates ÷ 255², first init ÷ 255",
        "Trained",
        "For the first layer, but for its decay, the exact repair. The second needed no "
        "change and got a rate 65025 times too small: it hardly moves, and the first layer learns "
        "around it.",
    ),
}
BOTH_LAYERS = (
    "Why both layers seemed to need it: with one learning rate for all layers, the only exact "
    "repair shares the change evenly, ÷ √255 for each init. With a rate per layer, changing the "
    "first layer alone is enough."
)


def attempts(experiment: Experiment) -> list[tuple[str, str]]:
    """What was tried and why it went as it did, if the run is one of the question's at × 255."""
    case = name(experiment)
    if case == "custom" or experiment.input_scale != SCALE:
        return []
    return [
        (tried.what, f"{tried.ended}: {tried.reason[0].lower()}{tried.reason[1:]}")
        for tried in ATTEMPTS.values()
    ]

"""The question's cases by name: what its owner changed after multiplying the inputs by s."""

import math
from typing import Any

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
            **settings(case, scale), seed=experiment.seed, epochs=experiment.epochs,
            train_size=experiment.train_size, precision=experiment.precision,
        )  # fmt: skip
        if same == experiment:
            return case
    return "custom"

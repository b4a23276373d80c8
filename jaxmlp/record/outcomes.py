"""How a run ended: its outcome, the diagnostics beside it, its verdict in words, its course."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from jaxmlp.experiment import Experiment
from jaxmlp.record.metrics import EpochResult

# A layer is dead when at least this share of the test images activates none of its units. Not 1:
# on CIFAR-10, one or two freak images of 60 000 still reach a unit of the question's dead network.
SILENT_SHARE = 0.999
STALLED_SHARE = 0.9  # of ln(classes), the loss of a guess
NEARLY_ALL_UNITS = 0.99  # of a layer's, dead in a batch: from here on the layer has collapsed
OUTCOMES = ("trained", "stalled", "dead", "nonfinite")
COURSES = ("stable", "recovers", "fails")  # by how grave
# The probability from which on the course `fails` is foretold. Measured on family 1 of
# scripts/calibrate.py: few runs fail, and at 0.5 too many of them are missed.
FAILS_FROM = 0.3


def outcome(
    classes: int,
    steps: dict[str, Float[np.ndarray, "steps ..."]],
    rows: list[dict[str, Any]],
    finite: bool,
) -> str:
    """One of trained, stalled, dead, nonfinite.

    Args:
        steps: loss (steps,), grad_norm (steps, layers), dead (steps, hidden layers, fractions).
        rows: the record's epochs; at least one.
        finite: whether every final parameter is.
    """
    last = rows[-1]
    if not (finite and np.isfinite(steps["loss"]).all() and math.isfinite(last["test_loss"])):
        return "nonfinite"
    if _is_dead(last):
        return "dead"
    if not last["train_loss"] < STALLED_SHARE * math.log(classes):
        return "stalled"
    return "trained"


def diagnostics(
    steps: dict[str, Float[np.ndarray, "steps ..."]], rows: list[dict[str, Any]]
) -> dict[str, Any]:
    """What a reader asks next, whatever the outcome; run_record.py says what each entry is.

    Args:
        steps, rows: as `outcome` takes them.
    """
    loss, last = steps["loss"], rows[-1]
    with np.errstate(all="ignore"):
        spike = float(np.max(loss) / loss[0])
    return {
        "spike": spike,
        "dead": last["dead"],
        "worst_dead": [max(layer) for layer in zip(*(row["dead"] for row in rows), strict=True)],
        "collapse_step": [_dead_from(layer, NEARLY_ALL_UNITS) for layer in steps["dead"].T],
        "all_dead_step": [_dead_from(layer, 1.0) for layer in steps["dead"].T],
        "first_nonfinite_step": _first(~np.isfinite(loss)),
    }


def _dead_from(dead: Float[np.ndarray, " steps"], share: float) -> int | None:
    """The step, counted from 1, from which on at least this share of a layer's units is dead.

    Dead in every batch up to the last one; None if it does not end so.
    """
    alive = np.flatnonzero(~(dead >= share))
    first = int(alive[-1]) + 2 if len(alive) else 1
    return first if first <= len(dead) else None


def _first(condition: np.ndarray) -> int | None:
    return int(np.argmax(condition)) + 1 if condition.any() else None


def verdict(result: dict[str, Any], steps: dict[str, np.ndarray]) -> str:
    """The record's outcome as a sentence or two for a person."""
    last, classes = result["epochs"][-1], result["data"]["classes"]
    loss, accuracy, guess = float(last["train_loss"]), last["test_accuracy"], math.log(classes)
    match result["outcome"]:
        case "nonfinite":
            return f"Nonfinite: {_first_nonfinite(result)}; what follows is meaningless."
        case "dead":
            return f"{_death(result, steps)} Test accuracy {accuracy:.1%}."
        case "stalled":
            return (
                f"Stalled: the training loss ends at {loss:.3f}, not below "
                f"{STALLED_SHARE * guess:.3f} ({STALLED_SHARE:g} of guessing's ln {classes} = "
                f"{guess:.3f}). Test accuracy {accuracy:.1%}.{_dead_units(result)}"
            )
        case _:
            return (
                f"Trained: test accuracy {accuracy:.1%}, training loss {loss:.3f} "
                f"(guessing: {guess:.3f}).{_dead_units(result)}"
            )


def _first_nonfinite(result: dict[str, Any]) -> str:
    step = result["diagnostics"]["first_nonfinite_step"]
    if step is None:  # it is one of the two others that `outcome` looks at
        return "a parameter or the test loss is no longer finite"
    return f"the loss is no longer finite from step {step} on"


def over_since(rows: list[dict[str, Any]]) -> tuple[str, int] | None:
    """`dead` or `nonfinite`, and the first epoch, from 1, from which on the run is that.

    None if it is neither at the end.

    Args:
        rows: a record's `epochs`, or the first of them.
    """
    since: tuple[str, int] | None = None
    for row in rows:
        state = None
        if not (math.isfinite(row["train_loss"]) and math.isfinite(row["test_loss"])):
            state = "nonfinite"
        elif _is_dead(row):
            state = "dead"
        if since is None or since[0] != state:
            since = (state, row["epoch"]) if state else None
    return since


def _is_dead(row: dict[str, Any]) -> bool:
    """Whether a hidden layer was silent on (nearly) every test image after this epoch."""
    return any(silent >= SILENT_SHARE for silent in row["silent"])


def _hidden(result: dict[str, Any]) -> list[dict[str, Any]]:
    return result["layers"][:-1]


def _dead_units(result: dict[str, Any]) -> str:
    counts = [
        f"{round(dead * layer['fan_out'])} of {layer['fan_out']}"
        for dead, layer in zip(result["diagnostics"]["dead"], _hidden(result), strict=True)
    ]
    return f" Dead hidden units: {', '.join(counts)}." if counts else ""


def _death(result: dict[str, Any], steps: dict[str, np.ndarray]) -> str:
    """Which layer died, when, and what the network says since."""
    last = result["epochs"][-1]
    index = next(i for i, silent in enumerate(last["silent"]) if silent >= SILENT_SHARE)
    images, classes = result["data"]["test_size"], result["data"]["classes"]
    # Without biases zeros stay zeros; with them the output is what the later biases make of zeros.
    answer = "the same" if result["experiment"]["bias"] else "0"
    quiet = round(last["silent"][index] * images)
    whom = "every test image" if quiet == images else f"{quiet} of the {images} test images"
    loss = float(last["train_loss"])
    guessing = math.isclose(loss, math.log(classes), rel_tol=1e-3)
    ends = f"ln {classes}" if guessing else f"{loss:.3f}"
    when = _collapse(result, steps, index)
    return f"Dead: {when}; the network outputs {answer} for {whom}; training loss is {ends}."


def _collapse(result: dict[str, Any], steps: dict[str, np.ndarray], index: int) -> str:
    """From which step on the units of a hidden layer are dead in every batch, if in any."""
    layer, diagnostics = _hidden(result)[index], result["diagnostics"]
    width, name = layer["fan_out"], "hidden" if len(_hidden(result)) == 1 else layer["name"]
    collapse = diagnostics["collapse_step"][index]
    complete = diagnostics["all_dead_step"][index]
    if collapse is None:
        return f"the {width} {name} units answer to no more than a freak image"
    least = round(float(np.min(steps["dead"][collapse - 1 :, index])) * width)
    if complete is None:
        return (
            f"in every batch from step {collapse} on at least {least} of the {width} {name} units "
            "are dead"
        )
    before = f" ({least} of them from step {collapse} on)" if complete > collapse else ""
    return f"in every batch from step {complete} on all {width} {name} units are dead{before}"


def course(
    experiment: Experiment, results: Sequence[EpochResult], test_size: int, classes: int
) -> dict[str, Any]:
    """How a run went, by the definitions above.

    Returns:
        finite, diverges, fails; course, the word for these; and accuracies, on the test set
        after each epoch.
    """
    loss = np.concatenate([result.steps.loss for result in results]).astype(np.float64)
    last = results[-1].test
    finite = bool(np.isfinite(loss).all() and np.isfinite(last.loss))
    with np.errstate(all="ignore"):
        early, late = (float(np.mean(half)) for half in np.array_split(loss, 2))
        passed = bool(loss.max() > 1.5 * loss[0] + 0.5)
        rising = bool(late > 2 * early and late > 10 * loss[0])
    diverges = not finite or passed or bool((last.silent > test_size / 2).any())
    accuracies = [int(result.test.correct) / test_size for result in results]
    # A linear model has no units to lose.
    lost = bool(experiment.hidden) and accuracies[-1] < 2 / classes
    fails = diverges and (not finite or rising or lost)
    return {
        "finite": finite,
        "diverges": diverges,
        "fails": fails,
        "course": "fails" if fails else "recovers" if diverges else "stable",
        "accuracies": accuracies,
    }

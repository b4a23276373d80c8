"""How a run ended: its outcome, and the same in words."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from jaxmlp.experiment import Experiment
from jaxmlp.record.metrics import EpochResult

# A layer is dead when at least this share of the test images activates none of its units. Not 1:
# on CIFAR-10, one or two freak images of 60 000 still reach a unit of the question's dead network.
SILENT = 0.999
STALLED = 0.9  # of ln(classes), the loss of a guess
NEARLY_ALL = 0.99  # of a layer's units, dead in a batch: from here on the layer counts as gone


def outcome(
    classes: int,
    steps: dict[str, Float[np.ndarray, "steps ..."]],
    rows: list[dict[str, Any]],
    finite: bool,
) -> dict[str, Any]:
    """One of trained, stalled, dead, nonfinite, with what stands beside it in the record.

    Args:
        steps: loss (steps,), grad_norm (steps, layers), dead (steps, hidden layers, fractions).
        rows: the record's epochs; at least one.
        finite: whether every final parameter is.
    """
    loss, last = steps["loss"], rows[-1]
    kind = "trained"
    if not (finite and np.isfinite(loss).all() and math.isfinite(last["test_loss"])):
        kind = "nonfinite"
    elif any(silent >= SILENT for silent in last["silent"]):
        kind = "dead"
    elif not last["train_loss"] < STALLED * math.log(classes):
        kind = "stalled"
    with np.errstate(all="ignore"):
        spike = float(np.max(loss) / loss[0])
    return {
        "outcome": kind,
        "spike": spike,
        "dead": last["dead"],
        "worst_dead": [max(layer) for layer in zip(*(row["dead"] for row in rows), strict=True)],
        "collapse_step": [_dead_from(layer, NEARLY_ALL) for layer in steps["dead"].T],
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


def in_words(result: dict[str, Any], steps: dict[str, np.ndarray]) -> str:
    """The record's outcome as a sentence or two for a person."""
    ended, last, classes = result["outcome"], result["epochs"][-1], result["data"]["classes"]
    loss, accuracy = float(last["train_loss"]), last["test_accuracy"]
    match ended["outcome"]:
        case "nonfinite":
            step = ended["first_nonfinite_step"]
            where = (
                f"the loss is no longer finite from step {step} on"
                if step
                else ("a parameter or the test loss is no longer finite")
            )
            return f"Nonfinite: {where}; what follows is meaningless."
        case "dead":
            return _death(result, steps) + f" Test accuracy {accuracy:.1%}."
        case "stalled":
            return (
                f"Stalled: the training loss ends at {loss:.3f}, not below "
                f"{STALLED * math.log(classes):.3f} ({STALLED:g} of guessing's ln {classes} = "
                f"{math.log(classes):.3f}). Test accuracy {accuracy:.1%}."
            ) + _dead_units(result)
        case _:
            return (
                f"Trained: test accuracy {accuracy:.1%}, training loss {loss:.3f} "
                f"(guessing: {math.log(classes):.3f})."
            ) + _dead_units(result)


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
        elif any(silent >= SILENT for silent in row["silent"]):
            state = "dead"
        if since is None or since[0] != state:
            since = (state, row["epoch"]) if state else None
    return since


def _hidden(result: dict[str, Any]) -> list[dict[str, Any]]:
    return result["layers"][:-1]


def _dead_units(result: dict[str, Any]) -> str:
    counts = [
        f"{round(dead * layer['fan_out'])} of {layer['fan_out']}"
        for dead, layer in zip(result["outcome"]["dead"], _hidden(result), strict=True)
    ]
    return f" Dead hidden units: {', '.join(counts)}." if counts else ""


def _death(result: dict[str, Any], steps: dict[str, np.ndarray]) -> str:
    """Which layer died, when, and what the network says since."""
    last, classes = result["epochs"][-1], result["data"]["classes"]
    index = next(i for i, silent in enumerate(last["silent"]) if silent >= SILENT)
    layer, step = _hidden(result)[index], result["outcome"]["collapse_step"][index]
    width, images = layer["fan_out"], result["data"]["test_size"]
    where = "hidden" if len(_hidden(result)) == 1 else layer["name"]
    complete = result["outcome"]["all_dead_step"][index]
    text = f"Dead: the {width} {where} units answer to no more than a freak image"
    if step is not None:
        least = round(float(np.min(steps["dead"][step - 1 :, index])) * width)
        text = (
            f"Dead: in every batch from step {step} on at least {least} of the {width} {where} "
            "units are dead"
        )
        if complete is not None:
            before = f" ({least} of them from step {step} on)" if complete > step else ""
            text = (
                f"Dead: in every batch from step {complete} on all {width} {where} units are "
                f"dead{before}"
            )
    quiet = round(last["silent"][index] * images)
    said = "0" if not result["experiment"]["bias"] else "the same"
    whom = "every test image" if quiet == images else f"{quiet} of the {images} test images"
    loss = float(last["train_loss"])
    guess = math.log(classes)
    at = f"ln {classes}" if math.isclose(loss, guess, rel_tol=1e-3) else f"{loss:.3f}"
    return f"{text}; the network outputs {said} for {whom}; training loss is {at}."


COURSES = ("stable", "recovers", "fails")  # by how grave


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

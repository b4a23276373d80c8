"""What a step, an epoch and an evaluation leave, whoever trains."""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from jaxmlp.experiment import Experiment

Array = Any  # of JAX on the device, of NumPy on the host
Params = list[dict[str, Any]]  # a layer each: kernel (fan_in, fan_out) and perhaps bias (fan_out,)


class StepMetrics(NamedTuple):
    """What each step leaves behind; under a scan each has a leading axis of steps."""

    loss: Float[Array, ""]  # of the batch, before the step
    correct: Int[Array, ""]  # images of the batch, before the step
    grad_norm: Float[Array, " layers"]  # L2, of the loss alone: without weight decay
    dead: Int[Array, " hidden"]  # units of each hidden layer that no image of the batch activates


class Evaluation(NamedTuple):
    """What the whole test set says; counts, so that shares are exact on the host."""

    loss: Float[Array, ""]
    correct: Int[Array, ""]
    dead: Int[Array, " hidden"]  # units of each hidden layer that no image activates
    silent: Int[Array, " hidden"]  # images that activate no unit of each hidden layer


class EpochResult(NamedTuple):
    """One finished epoch, on the host."""

    steps: StepMetrics  # NumPy arrays with a leading axis of steps
    test: Evaluation
    params: Params  # on the device, after the epoch; given up to the next epoch when that starts
    seconds: float


def epoch_row(
    epoch: int,
    loss: Float[np.ndarray, " steps"],
    correct: Int[np.ndarray, " steps"],
    train_size: int,
    test_loss: float,
    test_correct: int,
    test_size: int,
    dead: list[float],
    silent: list[float],
) -> dict[str, Any]:
    """One entry of `epochs`; loss and correct are those of its batches."""
    return {
        "epoch": epoch,
        "train_loss": float(np.mean(loss, dtype=np.float64)),
        "train_accuracy": int(np.sum(correct)) / train_size,
        "test_loss": float(test_loss),
        "test_accuracy": int(test_correct) / test_size,
        "dead": dead,
        "silent": silent,
    }


def result_row(
    experiment: Experiment, epoch: int, result: EpochResult, test_size: int
) -> dict[str, Any]:
    """The record's entry for one epoch of a run."""
    loss, test = np.asarray(result.steps.loss), result.test
    return epoch_row(
        epoch,
        loss,
        np.asarray(result.steps.correct),
        len(loss) * experiment.batch_size,
        float(test.loss),
        int(test.correct),
        test_size,
        (test.dead / np.array(experiment.hidden)).tolist(),
        (test.silent / test_size).tolist(),
    )


def steps_arrays(experiment: Experiment, epochs: list[StepMetrics]) -> dict[str, np.ndarray]:
    """The arrays of steps.npz, from the epochs' metrics."""
    loss, _, grad_norm, dead = (np.concatenate(arrays) for arrays in zip(*epochs, strict=True))
    return {"loss": loss, "grad_norm": grad_norm, "dead": dead / np.array(experiment.hidden)}

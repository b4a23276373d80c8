"""One run, compiled and ready to train: its inputs, its program, its epochs."""

import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Int

from jaxmlp.data.dataset import Dataset
from jaxmlp.device.mesh import device_mesh, put
from jaxmlp.device.precision import float_dtype, precision
from jaxmlp.experiment import Experiment
from jaxmlp.record.metrics import EpochResult, result_row, steps_arrays
from jaxmlp.torch_rng import TorchGenerator, batch_order, initial_weights
from jaxmlp.training.preprocessing import Images, put_images
from jaxmlp.training.step import (
    Hyperparameters,
    State,
    hyperparameters,
    initial_state,
    run_epoch,
    static_part,
)


class Prepared(NamedTuple):
    """A run before its first step, on the device."""

    widths: tuple[int, ...]  # of the input, every hidden layer, and the classes
    train_size: int
    steps_per_epoch: int
    images: Images
    hyper: Hyperparameters
    state: State
    order: Iterator[Int[np.ndarray, "steps batch"]]  # the epochs' batches, without end


def prepare(experiment: Experiment, dataset: Dataset, images: Images | None = None) -> Prepared:
    """The run's images, weights, optimizer state and order of batches.

    Args:
        images: the data set on the device, if it is there already.

    Raises:
        ValueError: the batch size does not divide the training images, or the device cannot
            compute in the experiment's precision.
    """
    train_size, widths = len(dataset.train_labels), dataset.widths(experiment.hidden)
    steps_per_epoch = experiment.steps_per_epoch(train_size)
    with precision(experiment):
        images = images or jax.block_until_ready(put_images(experiment, dataset))
        hyper = hyperparameters(experiment)
        generator = TorchGenerator(experiment.seed)
        dtype = np.dtype(float_dtype(experiment)).type
        weights = initial_weights(generator, widths, experiment.bias, dtype)
        initialise = jax.jit(initial_state, static_argnums=(0, 3))
        state = initialise(static_part(experiment), weights, hyper, steps_per_epoch)
    order = batch_order(generator, train_size, experiment.batch_size)
    return Prepared(widths, train_size, steps_per_epoch, images, hyper, state, order)


def compile_epoch(
    experiment: Experiment,
    widths: tuple[int, ...],
    state: State,
    hyper: Hyperparameters,
    images: Images,
    steps: int,
    mesh: Mesh | None = None,
) -> Any:
    """`run_epoch`, compiled for arguments of these shapes; the state is given up to it.

    Args:
        steps: of an epoch.
        mesh: its devices share each batch, along the axis `batch`; the rest is on all of them.
    """
    placed: dict[str, Any] = {}
    if mesh is not None:
        everywhere, batches = (NamedSharding(mesh, P(*names)) for names in ((), (None, "batch")))
        placed = {
            "in_shardings": (everywhere, everywhere, batches, everywhere),
            "out_shardings": everywhere,
        }
    epoch = jax.jit(run_epoch, static_argnums=(0, 1), donate_argnums=2, **placed)
    indices = jax.ShapeDtypeStruct((steps, experiment.batch_size), jnp.int32)
    return epoch.lower(static_part(experiment), widths, state, hyper, indices, images).compile()


class Run:
    """A compiled run, ready to train: the program, its inputs, and how long it took to get there.

    Args:
        data_parallel: devices that share each batch; the same run to rounding.

    Raises:
        ValueError: as `prepare`; or there are not so many devices, or they do not divide the batch.
    """

    def __init__(self, experiment: Experiment, dataset: Dataset, data_parallel: int = 1) -> None:
        began = time.perf_counter()
        mesh = None
        if data_parallel != 1:
            mesh = device_mesh(data_parallel, experiment.batch_size, only=True)
        self.experiment, self.start = experiment, prepare(experiment, dataset)
        if mesh is not None:
            images, hyper, state = put(
                (self.start.images, self.start.hyper, self.start.state), NamedSharding(mesh, P())
            )
            self.start = self.start._replace(images=images, hyper=hyper, state=state)
        self.train_size, self.state = self.start.train_size, self.start.state
        self.done = 0
        self.setup_seconds = time.perf_counter() - began
        began = time.perf_counter()
        with precision(experiment):
            self.compiled = compile_epoch(
                experiment,
                self.start.widths,
                self.state,
                self.start.hyper,
                self.start.images,
                self.start.steps_per_epoch,
                mesh,
            )
        self.compile_seconds = time.perf_counter() - began

    def resume(self, state: State, done: int) -> None:
        """Goes on from the state after `done` epochs, with the batches that follow them."""
        self.state, self.done = state, done
        for _ in range(done):
            next(self.start.order)

    def epochs(self) -> Iterator[EpochResult]:
        """Trains what is left, yielding after each epoch. Can be iterated once: the state moves."""
        left = range(self.done, self.experiment.epochs)
        batches = next(self.start.order) if left else None
        for epoch in left:
            began = time.perf_counter()
            with precision(self.experiment):
                self.state, steps, test = self.compiled(
                    self.state, self.start.hyper, batches, self.start.images
                )
                if epoch + 1 < self.experiment.epochs:  # drawn while the device trains
                    batches = next(self.start.order)
                steps, test = jax.device_get((steps, test))  # waits
            yield EpochResult(steps, test, self.state.params, time.perf_counter() - began)

    def row(self, epoch: int, result: EpochResult) -> dict[str, Any]:
        """The record's entry for one epoch."""
        return result_row(self.experiment, epoch, result, len(self.start.images.test_labels))

    def steps(self, results: list[EpochResult]) -> dict[str, np.ndarray]:
        """The arrays of steps.npz."""
        return steps_arrays(self.experiment, [result.steps for result in results])

"""Many runs, ready to train: their program over settings, seeds and devices, chunk by chunk.

A device's block is a rectangle, some seeds by some settings; runs of one seed see the same batches.
On GPU and TPU a block's runs train side by side (`vmap`: wide matrix products instead of many). On
CPU one run fills the cores; there they follow each other inside the program (`lax.map`), and each
is bit for bit what it is alone. A chunk is a block for every device along the mesh's axis `runs`;
along its axis `batch` the devices share each batch.
"""

import functools
import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Bool

from jaxmlp.data.dataset import Dataset
from jaxmlp.device import processes
from jaxmlp.device.mesh import device_mesh, free_memory, put
from jaxmlp.device.precision import float_dtype, precision
from jaxmlp.experiment import Experiment
from jaxmlp.forecasting.curvature import Found, sample
from jaxmlp.record.metrics import EpochResult
from jaxmlp.sweeps.blocks import Block, blocks, one_scale_per_block, seeded
from jaxmlp.sweeps.program import Program, bytes_per_device
from jaxmlp.torch_rng import TorchGenerator, batch_order, initial_weights
from jaxmlp.training.model import Params
from jaxmlp.training.preprocessing import put_images
from jaxmlp.training.step import Hyperparameters, hyperparameters, static_part

# Runs of a block at most. CPU: what a crash may cost is bounded, and the program's start spread.
# TPU: by the compiler's own estimates for v5e and v6e, 16 cost the least each, 64 a third more.
MOST_RUNS_PER_BLOCK = {"cpu": 16, "tpu": 16}
MEMORY_SHARE = 0.8  # of a device's free memory


class Finished(NamedTuple):
    """One run of a sweep, on the host."""

    setting: int
    seed: int  # its position among the seeds
    epochs: list[EpochResult]  # without parameters
    finite: bool  # whether every final parameter is


def _stacked(trees: Iterable[Any]) -> Any:
    return jax.tree.map(lambda *leaves: np.stack(leaves), *trees)


class Sweep:
    """The runs of every setting with every seed, ready to train in chunks.

    Args:
        settings: experiments that differ only in what is traced; their seeds are not looked at.
        seeds: of the runs.
        data_parallel: devices that share each batch.
        size: runs of a device's block; None: by the device's memory.
        side_by_side: None: on everything but a CPU.

    Raises:
        ValueError: the settings need more than one program, or the devices cannot be shared so.
    """

    def __init__(
        self,
        settings: Sequence[Experiment],
        seeds: Sequence[int],
        dataset: Dataset,
        data_parallel: int = 1,
        size: int | None = None,
        side_by_side: bool | None = None,
    ) -> None:
        began = time.perf_counter()
        self.settings, self.seeds, self.dataset = list(settings), list(seeds), dataset
        static = {static_part(experiment) for experiment in settings}
        if len(static) != 1:
            raise ValueError("a sweep's runs differ only in what is traced; run the others apart")
        (self.experiment,) = static
        self.train_size = len(dataset.train_labels)
        self.mesh = device_mesh(data_parallel, self.experiment.batch_size)
        if side_by_side is None:
            side_by_side = jax.default_backend() != "cpu"
        scales = [experiment.input_scale for experiment in settings]
        self.program = Program(
            self.experiment,
            dataset.widths(self.experiment.hidden),
            self.experiment.steps_per_epoch(self.train_size),
            self.mesh,
            side_by_side,
            one_scale_per_block(scales),
        )
        with precision(self.experiment):
            everywhere = self.program.sharding()
            self.local_images = put_images(self.experiment, dataset)
            self.images = put(self.local_images, everywhere)
            self.size = self._block_size(size)
            self.blocks = blocks(scales, len(self.seeds), self.size)
            self.height, self.width = len(self.blocks[0].seeds), len(self.blocks[0].settings)
            self.compiled = self.program.compile(
                self.program.shapes(self.height, self.width, self.images)
            )
            self._initial_states = jax.jit(
                self.program.initial_states, out_shardings=self.program.sharding("runs")
            )
            self._finite = jax.jit(self.program.finite, out_shardings=everywhere)
            self._curvature = jax.jit(self.program.curvature, out_shardings=everywhere)
        self.setup_seconds = time.perf_counter() - began

    def _block_size(self, asked: int | None) -> int:
        """Runs of a block: as asked or by memory, no more than there are, the same everywhere."""
        runs = len(self.settings) * len(self.seeds)
        most = -(-runs // self.mesh.shape["runs"])
        size = min(most, asked or self._size_by_memory(most))
        # The processes' devices may have different memory: the smallest counts.
        return int(processes.gather(np.array(size, np.int32)).min())

    def _size_by_memory(self, most: int) -> int:
        """As many runs a block as the device's free memory takes."""
        most = min(most, MOST_RUNS_PER_BLOCK.get(jax.default_backend(), most))
        if most < 3 or not self.program.side_by_side:
            return most
        one, two = (
            bytes_per_device(self.program.compile(self.program.shapes(1, count, self.images)))
            for count in (1, 2)
        )
        fixed = 2 * one - two - sum(leaf.nbytes for leaf in jax.tree.leaves(self.images))
        free = MEMORY_SHARE * free_memory() - fixed
        return max(1, min(most, int(free / max(two - one, 1))))

    def chunks(self) -> list[list[Block]]:
        """The blocks by chunks: one for each device along `runs`."""
        count = self.mesh.shape["runs"]
        return [self.blocks[i : i + count] for i in range(0, len(self.blocks), count)]

    def runs(self, chunk: Sequence[Block]) -> list[tuple[int, int]]:
        """The runs of a chunk, (setting, seed) by their positions, each once."""
        pairs = ((i, j) for block in chunk for j in block.seeds for i in block.settings)
        return list(dict.fromkeys(pairs))

    def train(
        self, chunk: Sequence[Block], progress: Callable[[int], None] = lambda epoch: None
    ) -> list[Finished]:
        """Trains a chunk; every process gets all its runs.

        Args:
            progress: called after each epoch, counted from 1.
        """
        blocks = self._for_all_devices(chunk)
        with precision(self.experiment):
            hyper = self._hyper(blocks, self.settings)
            if self.program.shared_scale:
                hyper = hyper._replace(input_scale=hyper.input_scale[:, 0])
            weights, orders = self._drawn(blocks)
            hyper = put(hyper, self.program.sharding("runs"))
            state = self._initial_states(weights, hyper)
            results = []
            order = self._order(blocks, orders)
            for epoch in range(1, self.experiment.epochs + 1):
                state, steps, test = self.compiled(state, hyper, order, self.images)
                if epoch < self.experiment.epochs:  # drawn while the devices train
                    order = self._order(blocks, orders)
                results.append(jax.device_get((steps, test)))
                progress(epoch)
            finite = jax.device_get(self._finite(state.params))
        found = {}
        for d, block in enumerate(chunk):
            for (j, seed), (i, setting) in itertools.product(
                enumerate(block.seeds), enumerate(block.settings)
            ):
                own = functools.partial(jax.tree.map, lambda leaf, at=(d, j, i): leaf[at])
                epochs = [EpochResult(own(steps), own(test), [], 0.0) for steps, test in results]
                found[setting, seed] = Finished(setting, seed, epochs, bool(finite[d, j, i]))
        return list(found.values())

    def curvature(
        self,
        chunk: Sequence[Block],
        settings: Sequence[Experiment],
        wanted: Bool[np.ndarray, "blocks seeds settings"],
    ) -> Found:
        """The curvature of a chunk's wanted runs at their start; leaves (blocks, seeds, settings).

        Every device looks at its own block's, every process gets all.

        Args:
            settings: stand in the places of the sweep's.
        """
        blocks, runs = self._for_all_devices(chunk), self.program.sharding("runs")
        with precision(self.experiment):
            weights, orders = self._drawn(blocks)
            first = {seed: sample(next(order)) for seed, order in orders.items()}
            batches = np.stack([np.stack([first[j] for j in block.seeds]) for block in blocks])
            there = np.zeros((len(blocks), *wanted.shape[1:]), bool)
            there[: len(chunk)] = wanted
            own = put((self._hyper(blocks, settings), there, batches), runs)
            found = jax.device_get(self._curvature(weights, *own, self.images))
        return jax.tree.map(lambda leaf: leaf[: len(chunk)], found)

    def _for_all_devices(self, chunk: Sequence[Block]) -> list[Block]:
        """The chunk with its last block repeated, so that every device has one."""
        return list(chunk) + [chunk[-1]] * (self.mesh.shape["runs"] - len(chunk))

    def _hyper(self, blocks: Sequence[Block], settings: Sequence[Experiment]) -> Hyperparameters:
        """Leaves (devices, settings, ...), on the host."""
        return _stacked(
            _stacked(hyperparameters(settings[i], np.asarray) for i in block.settings)
            for block in blocks
        )

    def _drawn(self, blocks: Sequence[Block]) -> tuple[Params, dict[int, Iterator[np.ndarray]]]:
        """Each seed's initial weights, drawn once, and its epochs' batches.

        The weights are on the devices, leaves (devices, seeds, ...).
        """
        seeds = dict.fromkeys(seed for block in blocks for seed in block.seeds)
        generators = {seed: TorchGenerator(self.seeds[seed]) for seed in seeds}
        dtype = np.dtype(float_dtype(self.experiment)).type
        drawn = {
            seed: initial_weights(generator, self.program.widths, self.experiment.bias, dtype)
            for seed, generator in generators.items()
        }
        weights = _stacked(_stacked(drawn[seed] for seed in block.seeds) for block in blocks)
        orders = {
            seed: batch_order(generator, self.train_size, self.experiment.batch_size)
            for seed, generator in generators.items()
        }
        return put(weights, self.program.sharding("runs")), orders

    def _order(self, chunk: Sequence[Block], orders: dict[int, Iterator[np.ndarray]]) -> Array:
        """The batches of an epoch; (devices, seeds, steps, batch).

        A process draws for its own devices alone, each seed's once.
        """
        drawn = functools.cache(lambda seed: next(orders[seed]))

        def of_device(index: Any) -> np.ndarray:
            blocks, *within = index
            order = [np.stack([drawn(seed) for seed in block.seeds]) for block in chunk[blocks]]
            return np.stack(order)[:, *within]

        steps, batch = self.program.steps_per_epoch, self.experiment.batch_size
        shape = (len(chunk), len(chunk[0].seeds), steps, batch)
        sharding = self.program.sharding("runs", None, None, "batch")
        return jax.make_array_from_callback(shape, sharding, of_device)

    def experiment_of(self, run: Finished) -> Experiment:
        """What a run was asked, its seed included."""
        return seeded(self.settings[run.setting], self.seeds[run.seed])

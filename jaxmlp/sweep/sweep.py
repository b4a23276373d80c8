"""Many runs as one compiled program: train.run_epoch mapped over settings, seeds and devices.

A device's block is a rectangle, some seeds by some settings; runs of one seed see the same batches.
On GPU and TPU a block's runs train side by side (`vmap`: wide matrix products instead of many). On
CPU one run fills the cores; there they follow each other inside the program (`lax.map`), and each
is bit for bit what it is alone. A chunk is a block for every device along the mesh's axis `runs`;
along its axis `batch` the devices share each batch.
"""

import dataclasses
import functools
import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Bool, Int

from jaxmlp.data.dataset import Dataset
from jaxmlp.device import processes as devices
from jaxmlp.experiment import Experiment
from jaxmlp.forecast import curvature
from jaxmlp.forecast.curvature import Sharpness
from jaxmlp.forecast.rehearsal import Forecast, first_steps, judge
from jaxmlp.torch_rng import TorchGenerator, batch_order, initial_weights
from jaxmlp.train.model import Params
from jaxmlp.train.preprocessing import Images, put_images
from jaxmlp.train.step import (
    EpochResult,
    Evaluation,
    Hyperparameters,
    State,
    StepMetrics,
    hyperparameters,
    initial_state,
    program,
    run_epoch,
    start,
)

# Runs of a block at most. CPU: what a crash may cost is bounded, and the program's start spread.
# TPU: by the compiler's own estimates for v5e and v6e, 16 cost the least each, 64 a third more.
MOST = {"cpu": 16, "tpu": 16}
USED = 0.8  # of a device's free memory
FEW = 8  # settings per input scale from which on blocks of one scale each are worth it


class Block(NamedTuple):
    """What one device trains at a time: every seed with every setting, by their positions."""

    seeds: tuple[int, ...]
    settings: tuple[int, ...]


class Finished(NamedTuple):
    """One run of a sweep, on the host."""

    setting: int
    seed: int  # its position among the seeds
    epochs: list[EpochResult]  # without parameters
    finite: bool  # whether every final parameter is


def seeded(setting: Experiment, seed: int) -> Experiment:
    """The run of a setting with a seed."""
    return dataclasses.replace(setting, seed=seed)


def one_scale_per_block(scales: Sequence[float]) -> bool:
    """Whether blocks keep to one input scale each, so that their runs share the scaled batch."""
    return len(scales) >= FEW * len(set(scales))


def blocks(scales: Sequence[float], seeds: int, size: int) -> list[Block]:
    """All runs in rectangles of the same shape, at most `size` runs each.

    Args:
        scales: the settings' input scales.
        seeds: how many.

    Returns:
        Blocks of settings first; the last of a group repeats its last setting or seed.
    """
    positions = range(len(scales))
    groups = [list(positions)]
    if one_scale_per_block(scales):
        groups = [[i for i in positions if scales[i] == scale] for scale in dict.fromkeys(scales)]
    longest = max(map(len, groups))
    width = min(longest, -(-longest // -(-longest // size)))  # even pieces: little to repeat
    height = min(seeds, max(1, size // width))
    return [
        Block(own_seeds, own_settings)
        for group in groups
        for own_settings in _pieces(group, width)
        for own_seeds in _pieces(range(seeds), height)
    ]


def _pieces(items: Sequence[int], size: int) -> Iterator[tuple[int, ...]]:
    for first in range(0, len(items), size):
        piece = tuple(items[first : first + size])
        yield piece + piece[-1:] * (size - len(piece))


# ---- the compiled program


def over(each: Callable[[Any], Any], side_by_side: bool) -> Callable[[Any], Any]:
    """`each` over the leading axis of its argument."""
    return jax.vmap(each) if side_by_side else functools.partial(jax.lax.map, each)


class Program(NamedTuple):
    """What is compiled: it does not know the traced settings' values."""

    experiment: Experiment  # train.program's
    widths: tuple[int, ...]
    steps_per_epoch: int
    mesh: Mesh  # axes runs and batch
    side_by_side: bool
    shared_scale: bool  # of a block: its runs take the same inputs

    def sharding(self, *names: str | None) -> NamedSharding:
        return NamedSharding(self.mesh, P(*names))

    def hyper_axes(self) -> Any:
        """Which leaves of a block's Hyperparameters have an axis of settings."""
        return Hyperparameters(None if self.shared_scale else 0, 0, 0)  # pyright: ignore

    def _on_each_device(self, block: Callable[..., Any], *mapped: bool) -> Callable[..., Any]:
        """`block` on every device's part: arguments that are mapped have a leading axis of runs."""

        def local(*arguments):
            own = [
                jax.tree.map(lambda leaf: leaf[0], argument) if is_mapped else argument
                for argument, is_mapped in zip(arguments, mapped, strict=True)
            ]
            return jax.tree.map(lambda leaf: leaf[None], block(*own))

        return jax.shard_map(
            local,
            mesh=self.mesh,
            in_specs=tuple(P("runs") if is_mapped else P() for is_mapped in mapped),
            out_specs=P("runs"),
            axis_names={"runs"},
            check_vma=False,
        )

    def _over_settings(self, each: Callable[[Any, Any], Any], states: Any, hyper: Any) -> Any:
        """`each(state, hyper)` over a block's settings."""
        if self.side_by_side:
            return jax.vmap(each, in_axes=(0, self.hyper_axes()))(states, hyper)
        scale = hyper.input_scale

        def one(pair):
            state, own = pair
            return each(state, own._replace(input_scale=scale) if self.shared_scale else own)

        mapped = hyper._replace(input_scale=None) if self.shared_scale else hyper
        return jax.lax.map(one, (states, mapped))

    def epoch(
        self, states: State, hyper: Hyperparameters, order: Int[Array, "..."], images: Images
    ) -> tuple[State, StepMetrics, Evaluation]:
        """One epoch of a chunk.

        Args:
            states: leaves (devices, seeds, settings, ...).
            hyper: leaves (devices, settings, ...).
            order: (devices, seeds, steps, batch).
        """

        def block(states, hyper, order, images):
            def of_seed(pair):
                own, batches = pair
                return self._over_settings(
                    lambda state, hyper: run_epoch(
                        self.experiment, self.widths, state, hyper, batches, images
                    ),
                    own,
                    hyper,
                )

            return over(of_seed, self.side_by_side)((states, order))

        return self._on_each_device(block, True, True, True, False)(states, hyper, order, images)

    def start(self, weights: Params, hyper: Hyperparameters) -> State:
        """A chunk's states before the first step; weights: leaves (devices, seeds, ...)."""

        def block(weights, hyper):
            def of_seed(own):
                def each(_, hyper):
                    return initial_state(self.experiment, own, hyper, self.steps_per_epoch)

                settings = len(hyper.rates["kernel"].learning_rate)
                return self._over_settings(each, jnp.zeros(settings), hyper)

            return over(of_seed, self.side_by_side)(weights)

        return self._on_each_device(block, True, True)(weights, hyper)

    def finite(self, params: Params) -> Bool[Array, "devices seeds settings"]:
        """Whether all of a run's parameters are."""
        leaves = [jnp.isfinite(leaf) for leaf in jax.tree.leaves(params)]
        return functools.reduce(
            jnp.logical_and, [jnp.all(leaf, axis=tuple(range(3, leaf.ndim))) for leaf in leaves]
        )

    def epoch_shardings(self) -> dict[str, Any]:
        """jit's: states stay where they are, metrics go to every process."""
        runs, everywhere = self.sharding("runs"), self.sharding()
        order = self.sharding("runs", None, None, "batch")
        return {
            "in_shardings": (runs, runs, order, everywhere),
            "out_shardings": (runs, everywhere, everywhere),
        }

    def compile(self, shapes: tuple[Any, ...]) -> Any:
        """The epoch, compiled for arguments of these shapes."""
        epoch = jax.jit(self.epoch, donate_argnums=0, **self.epoch_shardings())
        return epoch.lower(*shapes).compile()

    def shapes(self, seeds: int, settings: int, images: Images) -> tuple[Any, ...]:
        """The shapes of `epoch`'s arguments for blocks of this size."""
        dtype, batch = devices.dtype(self.experiment), self.experiment.batch_size
        count = self.mesh.shape["runs"]

        def abstract(leading: tuple[int, ...]):
            return lambda leaf: jax.ShapeDtypeStruct(leading + leaf.shape, leaf.dtype)

        sizes = [
            {"kernel": (fan_in, fan_out), "bias": (fan_out,)}
            for fan_in, fan_out in itertools.pairwise(self.widths)
        ]
        weights = [
            {name: jax.ShapeDtypeStruct(of[name], dtype) for name in self.experiment.tensors}
            for of in sizes
        ]
        hyper = jax.eval_shape(lambda: hyperparameters(self.experiment))
        state = jax.eval_shape(
            lambda w, h: initial_state(self.experiment, w, h, self.steps_per_epoch), weights, hyper
        )
        axes = jax.tree.map(abstract((count, settings)), hyper)
        if self.shared_scale:
            axes = axes._replace(input_scale=jax.ShapeDtypeStruct((count,), dtype))
        order = jax.ShapeDtypeStruct((count, seeds, self.steps_per_epoch, batch), jnp.int32)
        return (
            jax.tree.map(abstract((count, seeds, settings)), state),
            axes,
            order,
            jax.tree.map(abstract(()), images),
        )


def bytes_per_device(compiled: Any) -> int:
    """What a compiled program holds at a time on each device, by the compiler's own account."""
    found = compiled.memory_analysis()
    return (
        found.argument_size_in_bytes
        + found.output_size_in_bytes
        + found.temp_size_in_bytes
        - found.alias_size_in_bytes
    )


# ---- a sweep


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
        static = {program(experiment) for experiment in settings}
        if len(static) != 1:
            raise ValueError("a sweep's runs differ only in what is traced; run the others apart")
        (self.experiment,) = static
        self.train_size = len(dataset.train_labels)
        self.mesh = devices.mesh(data_parallel, self.experiment.batch_size)
        if side_by_side is None:
            side_by_side = jax.default_backend() != "cpu"
        scales = [experiment.input_scale for experiment in settings]
        self.program = Program(
            self.experiment, dataset.widths(self.experiment.hidden),
            self.experiment.steps_per_epoch(self.train_size), self.mesh, side_by_side,
            one_scale_per_block(scales),
        )  # fmt: skip
        with devices.precision(self.experiment):
            everywhere = self.program.sharding()
            self.local_images = put_images(self.experiment, dataset)
            self.images = devices.put(self.local_images, everywhere)
            runs = len(self.settings) * len(self.seeds)
            most = -(-runs // self.mesh.shape["runs"])
            self.size = min(most, size or self._size_by_memory(most))
            self.size = int(devices.gather(np.array(self.size, np.int32)).min())  # one for all
            self.blocks = blocks(scales, len(self.seeds), self.size)
            self.height, self.width = len(self.blocks[0].seeds), len(self.blocks[0].settings)
            self.compiled = self.program.compile(
                self.program.shapes(self.height, self.width, self.images)
            )
            runs_sharding = self.program.sharding("runs")
            self._start = jax.jit(self.program.start, out_shardings=runs_sharding)
            self._finite = jax.jit(self.program.finite, out_shardings=everywhere)
        self.setup_seconds = time.perf_counter() - began

    def _size_by_memory(self, most: int) -> int:
        """As many runs a block as the device's free memory takes."""
        most = min(most, MOST.get(jax.default_backend(), most))
        if most < 3 or not self.program.side_by_side:
            return most
        one, two = (
            bytes_per_device(self.program.compile(self.program.shapes(1, count, self.images)))
            for count in (1, 2)
        )
        fixed = 2 * one - two - sum(leaf.nbytes for leaf in jax.tree.leaves(self.images))
        free = USED * devices.free_memory() - fixed
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
        devices_used = list(chunk) + [chunk[-1]] * (self.mesh.shape["runs"] - len(chunk))
        with devices.precision(self.experiment):
            hyper = self._hyper(devices_used)
            generators = {
                seed: TorchGenerator(self.seeds[seed]) for block in chunk for seed in block.seeds
            }
            state = self._start(self._weights(devices_used, generators), hyper)
            orders = {
                seed: batch_order(generator, self.train_size, self.experiment.batch_size)
                for seed, generator in generators.items()
            }
            results = []
            order = self._order(devices_used, orders)
            for epoch in range(1, self.experiment.epochs + 1):
                state, steps, test = self.compiled(state, hyper, order, self.images)
                if epoch < self.experiment.epochs:  # drawn while the devices train
                    order = self._order(devices_used, orders)
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

    def _hyper(self, chunk: Sequence[Block]) -> Hyperparameters:
        own = [
            _stacked(jax.device_get(hyperparameters(self.settings[i])) for i in block.settings)
            for block in chunk
        ]
        if self.program.shared_scale:
            own = [hyper._replace(input_scale=hyper.input_scale[0]) for hyper in own]
        return devices.put(_stacked(own), self.program.sharding("runs"))

    def _weights(self, chunk: Sequence[Block], generators: dict[int, TorchGenerator]) -> Params:
        """Each seed's initial weights, drawn once; leaves (devices, seeds, ...)."""
        dtype = np.dtype(devices.dtype(self.experiment)).type
        drawn = {
            seed: initial_weights(generator, self.program.widths, self.experiment.bias, dtype)
            for seed, generator in generators.items()
        }
        weights = _stacked(_stacked(drawn[seed] for seed in block.seeds) for block in chunk)
        return devices.put(weights, self.program.sharding("runs"))

    def _order(self, chunk: Sequence[Block], orders: dict[int, Iterator[np.ndarray]]) -> Array:
        """The batches of an epoch, each seed's drawn once; (devices, seeds, steps, batch)."""
        drawn = {seed: next(order) for seed, order in orders.items()}
        order = np.stack([np.stack([drawn[seed] for seed in block.seeds]) for block in chunk])
        return devices.put(order, self.program.sharding("runs", None, None, "batch"))

    # ---- what could be foretold

    def forecasts(
        self, finished: Sequence[Finished], known: dict[str, float]
    ) -> Iterator[Forecast]:
        """What forecast.py would have said of each run; its own first steps are the rehearsal.

        Args:
            known: sharpness by what it depends on, filled here: runs that differ only in a common
                factor on their learning rates, or in their decay, share one computation.
        """
        limit = curvature.stability_limit(self.experiment)
        epoch = np.empty((self.program.steps_per_epoch, self.experiment.batch_size), np.int8)
        images = curvature.sample(epoch).size
        wanted = {}
        for run in finished:
            key, _ = self._unit_rate(run)
            if key.sha256 not in known:
                wanted[key.sha256] = key
        count, own = jax.process_count(), jax.process_index()
        found = np.full(len(wanted), np.nan)
        for position, experiment in enumerate(wanted.values()):
            if position % count == own:
                found[position] = self._sharpness(experiment).value
        with devices.precision(self.experiment):
            parts = devices.gather(found)
        known.update((key, float(parts[i % count, i])) for i, key in enumerate(wanted))
        for run in finished:
            key, rate = self._unit_rate(run)
            value = Sharpness(rate * known[key.sha256], limit, images)
            asked = self.settings[run.setting]
            yield judge(asked, value, first_steps(run.epochs), self.dataset.classes)

    def _unit_rate(self, run: Finished) -> tuple[Experiment, float]:
        """The run with its first learning rate 1 and no decay, and the rate."""
        asked = self.experiment_of(run)
        rate = asked.per_layer("learning_rate")[0]
        if rate == 0:
            return asked, 1.0
        changed: dict[str, Any] = {"weight_decay": (0.0,), "bias_weight_decay": None}
        for name in ("learning_rate", "bias_learning_rate"):
            if (rates := getattr(asked, name)) is not None:
                changed[name] = tuple(own / rate for own in rates)
        try:
            return dataclasses.replace(asked, **changed), rate
        except ValueError:  # another rate over this one is no float32: its sharpness is its own
            return asked, 1.0

    def experiment_of(self, run: Finished) -> Experiment:
        return seeded(self.settings[run.setting], self.seeds[run.seed])

    def _sharpness(self, experiment: Experiment) -> Sharpness:
        ready = start(experiment, self.dataset, self.local_images)
        return curvature.sharpness(experiment, ready, curvature.sample(next(ready.order)))

"""The compiled program of a sweep: training.step.run_epoch over settings, seeds and devices."""

import functools
import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Bool, Int

from jaxmlp.device.precision import float_dtype
from jaxmlp.experiment import Experiment
from jaxmlp.forecasting.curvature import Found, at_start
from jaxmlp.forecasting.lanczos import Ritz
from jaxmlp.record.metrics import Evaluation, StepMetrics
from jaxmlp.training.model import Params
from jaxmlp.training.preprocessing import Images
from jaxmlp.training.step import Hyperparameters, State, hyperparameters, initial_state, run_epoch

TOGETHER = 16  # runs whose curvature is looked at side by side; each takes some 40 MB for that


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

    def initial_states(self, weights: Params, hyper: Hyperparameters) -> State:
        """A chunk's states before the first step; weights: leaves (devices, seeds, ...)."""

        def block(weights, hyper):
            def of_seed(own):
                def each(_, hyper):
                    return initial_state(self.experiment, own, hyper, self.steps_per_epoch)

                settings = len(hyper.rates["kernel"].learning_rate)
                return self._over_settings(each, jnp.zeros(settings), hyper)

            return over(of_seed, self.side_by_side)(weights)

        return self._on_each_device(block, True, True)(weights, hyper)

    def curvature(
        self,
        weights: Params,
        hyper: Hyperparameters,
        wanted: Bool[Array, "devices seeds settings"],
        batches: Int[Array, "devices seeds steps batch"],
        images: Images,
    ) -> Found:
        """Of a chunk's wanted runs the curvature at their start; NaN of the others.

        Args:
            weights: leaves (devices, seeds, ...).
            hyper: leaves (devices, settings, ...), the input scale's too.
            batches: each seed's sample.
        """
        dtype = float_dtype(self.experiment)
        unknown = Found(Ritz(jnp.full((), jnp.nan, dtype), jnp.zeros((), dtype)), jnp.int32(0))

        def block(weights, hyper, wanted, batches, images):
            def each(place):
                seed, setting = place
                own = jax.tree.map(lambda leaf: leaf[setting], hyper)

                def found():
                    drawn = jax.tree.map(lambda leaf: leaf[seed], weights)
                    state = initial_state(self.experiment, drawn, own, self.steps_per_epoch)
                    start = (self.experiment, self.widths, state.params, own)
                    return at_start(*start, batches[seed], images)

                return jax.lax.cond(wanted[seed, setting], found, lambda: unknown)

            seeds, settings = jnp.indices(wanted.shape).reshape(2, -1)
            together = TOGETHER if self.side_by_side else None
            found = jax.lax.map(each, (seeds, settings), batch_size=together)
            return jax.tree.map(lambda leaf: leaf.reshape(wanted.shape), found)

        on_each_device = self._on_each_device(block, True, True, True, True, False)
        return on_each_device(weights, hyper, wanted, batches, images)

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
        dtype, batch = float_dtype(self.experiment), self.experiment.batch_size
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

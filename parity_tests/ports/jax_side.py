"""The port: a Flax NNX model in a process of its own, held to the original layer by layer.

At every point (a call of a layer, or of an activation, pooling or softmax outside of the layers)
what the original had there can be put in the place of the port's own numbers, on the way forward
and on the way back. Then a layer's outputs and gradients are those of this layer alone: what went
wrong before it does not reach it.
"""

import ctypes
import functools
import gc
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.extend.core
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array

from jaxmlp.commands import setup_file
from jaxmlp.device.compilation import use_compilation_cache
from jaxmlp.networks.flax_model import FlaxModel, at
from jaxmlp.networks.flax_network import FlaxNetwork
from jaxmlp.networks.optimizer import Optimizer
from parity_tests.ports import wire
from parity_tests.ports.jax_optimizer import PortOptimizer
from parity_tests.ports.jax_watch import Watch, modules, settings

TYPES = {"float32": jnp.float32, "float64": jnp.float64}


class Port:
    """The calls that this process answers."""

    def __init__(self) -> None:
        self.calls = {
            name: getattr(self, name)
            for name in ("setup", "values", "order", "forward", "record", "train", "step", "read")
        }
        self.programs: dict[Any, Any] = {}

    def setup(self, given: str, examples: int, arrays: Any) -> tuple[Any, wire.Arrays]:
        """Sets the run up; tells its tensors, layers, optimizer, and the first batches."""
        model, optimizer, *rest = setup_file.parts(given, "--jax")
        self.directory = Path(given.rpartition(":")[0]).resolve().parent
        check_finite(model)
        self.rates = switch_off_dropout(model)
        optimizer = getattr(optimizer, "tx", optimizer)  # nnx.Optimizer holds optax' own
        transformation = optimizer if hasattr(optimizer, "update") else None
        if transformation is not None:
            optimizer = Optimizer("sgd", 0.0)  # in its place: its rates cannot be read
        self.network = FlaxNetwork(model, optimizer, *rest)
        self.optimizer = PortOptimizer(self.network, transformation)
        self.model = self.network.model
        self.examples = examples
        return {
            "tensors": self._tensors(),
            "batches": len(self.network.batches),
            "examples": len(self.batch(0)[0]),
            "optimizer": self.optimizer.told(),
            "dropout": self.rates,
            "training": _training(model),
        }, {}

    def _tensors(self) -> list[dict[str, Any]]:
        """Of every tensor: its name, shape, sort, and the layer that holds it."""
        values, told = self.model.values(), []
        sorts = {
            "parameter": self.model.parameters,
            "statistic": self.model.statistics,
            "constant": self.model.constants,
        }
        module = self.network.module
        for sort, names in sorts.items():
            for name in names:
                path = self.model.flat[name][0]
                owner = _owner(module, path)
                local = ".".join(map(str, path[len(owner) :]))
                layer = at(module, owner)
                told.append(
                    {
                        "name": name,
                        "shape": list(values[name].shape),
                        "sort": sort,
                        "owner": ".".join(map(str, owner)),
                        "local": local,
                        "kind": type(layer).__name__,
                        "library": type(layer).__module__.startswith("flax."),
                        "config": settings(layer),
                    }
                )
        return told

    def values(self, arrays: Any) -> tuple[Any, wire.Arrays]:
        """All tensors at the start, the batches' first examples, and all of the first batch."""
        own, model = self.model.values(), self.model
        names = (*model.parameters, *model.statistics, *model.constants)  # no keys of generators
        told = {f"tensor.{name}": own[name] for name in names}
        for number in range(len(self.network.batches)):
            inputs, targets = self.batch(number)
            told |= {f"inputs.{number}": inputs, f"targets.{number}": targets}
        return {}, _host(told | {"first": self.network.batches[0][0]})

    def order(self, arrays: Any) -> tuple[Any, wire.Arrays]:
        """The paths of modules in the order of their first calls, as far as JAX sees them."""
        units = [".".join(map(str, path)) for path, _ in modules(self.network.module)]
        watch = Watch({}, units, nested=True)
        run = functools.partial(self._run, watch, True, double=False)
        jax.eval_shape(run, self.model.values(), self.batch(0)[0])
        paths = [point["path"] for point in watch.points]
        return {"order": list(dict.fromkeys(path for path in paths if path is not None))}, {}

    def forward(
        self, training: bool, units: Sequence[str], arrays: wire.Arrays
    ) -> tuple[Any, wire.Arrays]:
        """A forward pass in float64, nothing put in its way: points, outputs and loss.

        Args:
            arrays: as of `record`.
        """
        with jax.enable_x64(True):
            cast = functools.partial(_cast, dtype=jnp.float64)
            values = self._values(arrays, cast)
            inputs, targets = cast(arrays["inputs"]), cast(arrays["targets"])
            points: list[Any] = []

            def run(values: Any, inputs: Any, targets: Any) -> Any:
                watch = Watch({}, units)
                outputs, _ = self._run(watch, training, values, inputs)
                points[:] = watch.points
                return watch.found, outputs, self.network.loss_function(outputs, targets)

            found, outputs, loss = jax.jit(run)(values, inputs, targets)
            told = {f"point.{key}": value for key, value in found.items()}
            return {"points": points}, _host(told | {"outputs": outputs, "loss": loss})

    def record(
        self,
        dtype: str,
        training: bool,
        units: Sequence[str],
        arrays: wire.Arrays,
    ) -> tuple[Any, wire.Arrays]:
        """A forward and a backward pass: every point, all gradients, statistics afterwards.

        Args:
            units: paths of the modules that are looked at as one layer each.
            arrays: `tensor.NAME` (its own where not given), `inputs`, `targets`, and what is put
                in the place of the port's own numbers: `point.KEY` and `point.KEY.gradient`.
        """
        with jax.enable_x64(dtype == "float64"):
            cast = functools.partial(_cast, dtype=TYPES[dtype])
            values = self._values(arrays, cast)
            inputs, targets = cast(arrays.pop("inputs")), cast(arrays.pop("targets"))
            given = {k: cast(arrays.pop(k)) for k in list(arrays)}  # points and outputs
            plan = self._plan(dtype, training, tuple(units), given, values, inputs, targets)
            program, points, shapes = plan
            taps = {key: jnp.zeros(shape, kind) for key, (shape, kind) in shapes.items()}
            trained = {name: values.pop(name) for name in self.model.parameters}
            out = program(trained, taps, values, given, inputs, targets)
            (loss, (found, outputs, after)), (grads, arrived) = out
            told = {f"point.{key}": value for key, value in found.items()}
            told |= {f"point.{key}.gradient": grad for key, grad in arrived.items()}
            told["outputs.gradient"] = told.pop("point.outputs.gradient")
            told |= {"outputs": outputs, "loss": loss}
            told |= {f"gradient.{name}": grad for name, grad in grads.items()}
            told |= {f"statistic.{name}": after[name] for name in self.model.statistics}
            return {"points": points}, _host(told)

    def _plan(
        self,
        dtype: str,
        training: bool,
        units: tuple[str, ...],
        given: Mapping[str, Array],
        values: Any,
        inputs: Any,
        targets: Any,
    ) -> tuple[Any, list[Any], dict[str, Any]]:
        """The compiled pass, its points, and the shapes of what is noted; kept for later."""
        key = (dtype, training, units, tuple(sorted(given)), inputs.shape)
        if key not in self.programs:
            double = dtype == "float64"
            look = Watch(given, units)
            outputs, _ = jax.eval_shape(
                functools.partial(self._run, look, training, double=double), values, inputs
            )
            shapes = {k: (v.shape, v.dtype) for k, v in look.shapes.items()}
            if not hasattr(outputs, "shape"):
                kind = type(outputs).__name__
                raise ValueError(f"the port returns a {kind}; it has to be an array")
            shapes["outputs"] = (outputs.shape, outputs.dtype)

            def loss(trained: Any, taps: Any, others: Any, given: Any, inputs: Any, targets: Any):
                watch = Watch(given, units, taps)
                outputs, after = self._run(
                    watch, training, {**trained, **others}, inputs, double=double
                )
                put = watch.put("outputs", outputs, prefix="")
                value = self.network.loss_function(put, targets)
                return value, (watch.found, outputs, after)

            program = jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))
            self.programs[key] = program, look.points, shapes
        return self.programs[key]

    def train(self, dtype: str, alone: bool, arrays: wire.Arrays) -> tuple[Any, wire.Arrays]:
        """Begins a run; tells whether all that its optimizer keeps goes by names that torch has.

        Args:
            alone: what was compiled before is dropped: it may take more than a network's tensors.
            arrays: `tensor.NAME`.
        """
        self.dtype = dtype
        if alone:
            self.programs.clear()
            jax.clear_caches()
            gc.collect()
            give_back()
        with jax.enable_x64(dtype == "float64"):
            cast = functools.partial(_cast, dtype=TYPES[dtype])
            values = self._values(arrays, cast)
            self.state = self.optimizer.initial({n: values[n] for n in self.network.settings})
            return {"known": self.optimizer.knows(self.state)}, {}

    def step(self, number: int, arrays: wire.Arrays) -> tuple[Any, wire.Arrays]:
        """The optimizer's step from the tensors and by the gradients given; tells the loss there.

        The optimizer's state is as the last step left it, but for what is given.

        Args:
            number: of the step, from 1.
            arrays: `tensor.NAME`, `gradient.NAME` (its own where not given), `inputs`, `targets`;
                `state.KIND.NAME`, if steps were left out.
        """
        with jax.enable_x64(self.dtype == "float64"):
            cast = functools.partial(_cast, dtype=TYPES[self.dtype])
            values = self._values(arrays, cast)
            others = {n: v for n, v in values.items() if n not in self.model.parameters}
            trained = {n: values[n] for n in self.network.settings}
            frozen = {n: values[n] for n in self.model.parameters if n not in trained}
            put = {k: cast(arrays.pop(k)) for k in list(arrays) if k.startswith("state.")}
            if put:
                self.state = self.optimizer.resumed(self.state, put, number - 1)
            key = ("step", self.dtype)
            if key not in self.programs:
                self.programs[key] = jax.jit(self._step, donate_argnums=(0, 3))
            inputs, targets = cast(arrays["inputs"]), cast(arrays["targets"])
            given = {n: cast(arrays.pop(k)) for n in trained if (k := f"gradient.{n}") in arrays}
            loss, grads, stepped, others, self.state = self.programs[key](
                trained, {**others, **frozen}, self.state, given, inputs, targets
            )
            found = stepped | {n: others[n] for n in self.model.statistics}
            self.left = {
                "gradient": {f"gradient.{n}": own for n, own in grads.items()},
                "tensor": {f"tensor.{n}": array for n, array in found.items()},
            }
            return {}, _host({"loss": loss})

    def read(self, sort: str, arrays: wire.Arrays) -> tuple[Any, wire.Arrays]:
        """What the last step left: its own gradients, or tensors or the state after it; once."""
        found = self.optimizer.kept(self.state) if sort == "state" else self.left.pop(sort)
        return {}, _host(found)

    def _step(
        self, trained: Any, others: Any, state: Any, given: Any, inputs: Any, targets: Any
    ) -> Any:
        def loss(trained: Any) -> Any:
            double = self.dtype == "float64"
            outputs, after = self._run(None, True, {**trained, **others}, inputs, double)
            return self.network.loss_function(outputs, targets), after

        (value, after), grads = jax.value_and_grad(loss, has_aux=True)(trained)
        stepped, state = self.optimizer.stepped({**grads, **given}, state, trained)
        return value, grads, stepped, {name: after[name] for name in others}, state

    def _run(
        self, watch: Watch | None, training: bool, values: Any, inputs: Any, double: bool = True
    ) -> tuple[Any, Any]:
        def call(module: Any, inputs: Any) -> Any:
            if watch is None:
                return module(inputs)
            with watch.looking(module, self.directory):
                return module(inputs)

        eps = self.model.eps()
        return self.model.run(values, eps, inputs, training=training, double=double, call=call)

    def _values(self, arrays: wire.Arrays, cast: Callable[[Any], Array]) -> dict[str, Array]:
        """All tensors: those given, its own where none is.

        What arrived is dropped as soon as it is cast: it may be most of what memory holds.
        """
        own = self.model.values()
        return {name: cast(arrays.pop(f"tensor.{name}", array)) for name, array in own.items()}

    def batch(self, number: int) -> tuple[Any, Any]:
        """The first examples of a batch."""
        inputs, targets = self.network.batches[number]
        return inputs[: self.examples], targets[: self.examples]


def _owner(module: nnx.Module, path: tuple[Any, ...]) -> tuple[Any, ...]:
    """The path of the innermost module that holds a tensor."""
    for length in range(len(path) - 1, 0, -1):
        if isinstance(at(module, path[:length]), nnx.Module) and not isinstance(
            at(module, path[:length]), nnx.List | nnx.Dict
        ):
            return path[:length]
    return ()


def check_finite(model: Any) -> None:
    """Raises ValueError if a tensor holds a number that is none."""
    if not isinstance(model, nnx.Module):
        return  # FlaxNetwork says what it is
    flat = FlaxModel(model)
    for name, value in flat.values().items():
        if jnp.issubdtype(value.dtype, jnp.floating):
            wrong = int((~jnp.isfinite(value)).sum())
            if wrong:
                raise ValueError(
                    f"{wrong} of the {value.size} numbers of {name} are not finite at the start"
                )


def switch_off_dropout(model: nnx.Module) -> dict[str, float]:
    """Sets every rate of dropout to 0; the rates as they were, by path, where they were not 0."""
    rates = {}
    for path, node in modules(model):
        for name in ("rate", "dropout_rate"):
            rate = vars(node).get(name)
            if isinstance(rate, float) and rate > 0:
                rates[".".join(map(str, path))] = rate
                setattr(node, name, 0.0)
    return rates


def _training(model: nnx.Module) -> bool | None:
    """The mode that the model is in; None if nothing in it has one."""
    flags = [
        not vars(node)[name]
        for _, node in modules(model)
        for name in ("use_running_average", "deterministic")
        if isinstance(vars(node).get(name), bool)
    ]
    return any(flags) if flags else None


def _cast(array: Any, dtype: Any) -> Array:
    """A copy, floating-point numbers in this type."""
    return jnp.array(array, dtype if jnp.issubdtype(array.dtype, jnp.floating) else None)


def _host(tree: Any) -> Any:
    def plain(array: Any) -> np.ndarray:
        array = np.asarray(array)
        return array if array.dtype.kind in wire.KINDS else array.astype(np.float32)

    return jax.tree.map(plain, jax.device_get(tree))


def give_back() -> None:
    """To the system, the memory that is free; glibc keeps it otherwise."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", lambda kept: None)
    trim(0)


def main() -> None:
    use_compilation_cache()
    with wire.channel() as (asked, answers):
        wire.serve(Port().calls, asked, answers)


if __name__ == "__main__":
    main()

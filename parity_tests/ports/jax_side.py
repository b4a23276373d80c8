"""The port: a Flax NNX model in a process of its own, held to the original layer by layer.

At every point (a call of a layer, or of an activation, pooling or softmax outside of the layers)
what the original had there can be put in the place of the port's own numbers, on the way forward
and on the way back. Then a layer's outputs and gradients are those of this layer alone: what went
wrong before it does not reach it.
"""

import contextlib
import ctypes
import functools
import gc
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.extend.core
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jaxtyping import Array

from jaxmlp.commands import setup_file
from jaxmlp.device.compilation import use_compilation_cache
from jaxmlp.networks.flax_model import FlaxModel, at
from jaxmlp.networks.flax_network import FlaxNetwork
from jaxmlp.networks.optimizer import Optimizer
from parity_tests.ports import wire

KINDS = {  # of functions, by their names in jax.nn, flax.nnx and jax.numpy
    "relu": "relu",
    "relu6": "relu6",
    "leaky_relu": "leaky_relu",
    "elu": "elu",
    "gelu": "gelu",
    "silu": "silu",
    "swish": "silu",
    "sigmoid": "sigmoid",
    "log_sigmoid": "logsigmoid",
    "tanh": "tanh",
    "softplus": "softplus",
    "hard_swish": "hardswish",
    "hard_silu": "hardswish",
    "mish": "mish",
    "softmax": "softmax",
    "log_softmax": "log_softmax",
    "max_pool": "max_pool",
    "avg_pool": "avg_pool",
    "dot_product_attention": "scaled_dot_product",
}
SOURCES = (jax.nn, nnx, jnp)
TYPES = {"float32": jnp.float32, "float64": jnp.float64}
BUFFERS = {  # of optax's states, by their names: torch's names for what they keep
    "TraceState": {"trace": "momentum_buffer"},
    "MomentumState": {"buffer": "momentum_buffer"},
    "ScaleByAdamState": {"mu": "exp_avg", "nu": "exp_avg_sq"},
    "ScaleByRmsState": {"nu": "square_avg"},
    "ScaleByLionState": {"mu": "exp_avg"},
    "AdagradState": {"sum": "sum"},
}


@jax.custom_vjp
def forced(own: Array, given: Array, gradient: Array, tap: Array) -> Array:
    """`given` in the place of `own`; on the way back `gradient` goes on to `own`.

    The gradient that arrives is the tap's.
    """
    return given


def _forward(own: Array, given: Array, gradient: Array, tap: Array) -> tuple[Array, Any]:
    return given, (given, gradient)


def _backward(kept: Any, arrived: Array) -> tuple[Array, Any, Any, Array]:
    given, gradient = kept
    return gradient, jnp.zeros_like(given), jnp.zeros_like(gradient), arrived


forced.defvjp(_forward, _backward)


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
        self.transformation = optimizer if hasattr(optimizer, "update") else None
        if self.transformation is not None:
            optimizer = Optimizer("sgd", 0.0)  # in its place: its rates cannot be read
        self.network = FlaxNetwork(model, optimizer, *rest)
        self.model = self.network.model
        self.examples = examples
        return {
            "tensors": self._tensors(),
            "batches": len(self.network.batches),
            "examples": len(self.batch(0)[0]),
            "optimizer": self._optimizer(),
            "dropout": self.rates,
            "training": _training(model),
        }, {}

    def _optimizer(self) -> dict[str, Any]:
        if self.transformation is not None:
            return {"name": "", "options": {}, "settings": {}}
        network = self.network
        return {
            "name": network.optimizer,
            "options": network.options,
            "settings": network.settings,
        }

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
        own, model = self._own(), self.model
        names = (*model.parameters, *model.statistics, *model.constants)  # no keys of generators
        told = {f"tensor.{name}": own[name] for name in names}
        for number in range(len(self.network.batches)):
            inputs, targets = self.batch(number)
            told |= {f"inputs.{number}": inputs, f"targets.{number}": targets}
        return {}, _host(told | {"first": self.network.batches[0][0]})

    def order(self, arrays: Any) -> tuple[Any, wire.Arrays]:
        """The paths of modules in the order of their first calls, as far as JAX sees them."""
        units = [".".join(map(str, path)) for path, _ in _modules(self.network.module)]
        watch = Watch({}, units, nested=True)
        run = functools.partial(self._run, watch, True, double=False)
        jax.eval_shape(run, self._own(), self.batch(0)[0])
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
            values = {n: cast(arrays.get(f"tensor.{n}", own)) for n, own in self._own().items()}
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
            values = {n: cast(arrays.pop(f"tensor.{n}", own)) for n, own in self._own().items()}
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
            own = self._own()
            values = {n: cast(arrays.get(f"tensor.{n}", own[n])) for n in self.network.settings}
            self.state = self._initial(values)
            kept = sum(np.size(value) for value in self._kept(self.state).values())
            floats = [
                leaf for leaf in jax.tree.leaves(self.state) if jnp.issubdtype(leaf, jnp.floating)
            ]
            return {"known": kept == sum(leaf.size for leaf in floats)}, {}

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
            # What arrives is dropped as soon as it is cast: it may be most of what memory holds.
            values = {n: cast(arrays.pop(f"tensor.{n}", own)) for n, own in self._own().items()}
            others = {n: v for n, v in values.items() if n not in self.model.parameters}
            trained = {n: values[n] for n in self.network.settings}
            frozen = {n: values[n] for n in self.model.parameters if n not in trained}
            put = {k: cast(arrays.pop(k)) for k in list(arrays) if k.startswith("state.")}
            if put:
                self.state = self._resumed(self.state, put, number - 1)
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
        return {}, _host(self._kept(self.state) if sort == "state" else self.left.pop(sort))

    def _step(
        self, trained: Any, others: Any, state: Any, given: Any, inputs: Any, targets: Any
    ) -> Any:
        def loss(trained: Any) -> Any:
            double = self.dtype == "float64"
            outputs, after = self._run(None, True, {**trained, **others}, inputs, double)
            return self.network.loss_function(outputs, targets), after

        (value, after), grads = jax.value_and_grad(loss, has_aux=True)(trained)
        stepped, state = self._stepped({**grads, **given}, state, trained)
        return value, grads, stepped, {name: after[name] for name in others}, state

    def _initial(self, trained: Any) -> Any:
        """The optimizer's state before the first step."""
        if self.transformation is not None:
            return self.transformation.init(self._tree(trained))
        chain, settings = self.network.user_optimizer.chain, self.network.settings
        return {name: chain(own).init(trained[name]) for name, own in settings.items()}

    def _stepped(self, grads: Any, state: Any, trained: Any) -> tuple[Any, Any]:
        """The trained tensors after the optimizer's step, and its state."""
        if self.transformation is not None:
            parameters = self._tree(trained)
            updates, state = self.transformation.update(self._tree(grads), state, parameters)
            return self._by_name(optax.apply_updates(parameters, updates)), state
        stepped, states = {}, {}
        for name, of_tensor in self.network.settings.items():
            chain = self.network.user_optimizer.chain(of_tensor)
            updates, states[name] = chain.update(grads[name], state[name], trained[name])
            stepped[name] = trained[name] + updates
        return stepped, states

    def _tree(self, tensors: Mapping[str, Any]) -> Any:
        """Tensors as nnx.state has them, which is what a user's transformation is made for."""
        flat = self.model.flat
        return nnx.from_flat_state(
            [(flat[n][0], flat[n][1].replace(t)) for n, t in tensors.items()]
        )

    def _by_name(self, tree: Any) -> dict[str, Any]:
        names = {path: name for name, (path, _) in self.model.flat.items()}
        return {names[path]: leaf.get_value() for path, leaf in nnx.to_flat_state(tree)}

    def _resumed(self, state: Any, put: Mapping[str, Any], steps: int) -> Any:
        """An optimizer's state after so many steps, with what is put in its place."""

        def one(link: Any, name: str) -> Any:
            names = BUFFERS.get(type(link).__name__, {})
            new = {}
            for own, kind in names.items():
                held = getattr(link, own)
                if self.transformation is None:
                    new[own] = put[f"state.{kind}.{name}"]
                else:
                    new[own] = self._tree(
                        {n: put[f"state.{kind}.{n}"] for n in self._by_name(held)}
                    )
            if names:
                link = link._replace(**new)
            if isinstance(link, tuple):
                parts = (each if n in names else one(each, name) for n, each in _fields(link))
                kind: Any = type(link)
                return kind(*parts) if hasattr(link, "_fields") else tuple(parts)
            counts = hasattr(link, "dtype") and not link.ndim and link.dtype.kind in "iu"
            return jnp.full_like(link, steps) if counts else link

        if self.transformation is not None:
            return one(state, "")
        return {name: one(of_tensor, name) for name, of_tensor in state.items()}

    def _kept(self, state: Any) -> dict[str, Any]:
        """What the optimizer keeps: state.NAME.TENSOR, by torch's names."""
        if self.transformation is None:
            return {
                f"state.{kind}.{name}": value
                for name, of_tensor in state.items()
                for kind, value in _buffers(of_tensor).items()
            }
        found = {}
        for kind, tree in _buffers(state).items():
            with contextlib.suppress(AttributeError, KeyError):  # of parts of the model alone
                found |= {f"state.{kind}.{n}": v for n, v in self._by_name(tree).items()}
        return found

    def _run(
        self, watch: "Watch | None", training: bool, values: Any, inputs: Any, double: bool = True
    ) -> tuple[Any, Any]:
        def call(module: Any, inputs: Any) -> Any:
            if watch is None:
                return module(inputs)
            with watch.looking(module, self.directory):
                return module(inputs)

        eps = self.model.eps()
        return self.model.run(values, eps, inputs, training=training, double=double, call=call)

    def _own(self) -> dict[str, Any]:
        return self.model.values()

    def batch(self, number: int) -> tuple[Any, Any]:
        """The first examples of a batch."""
        inputs, targets = self.network.batches[number]
        return inputs[: self.examples], targets[: self.examples]


class Watch:
    """Looks at the points of a pass that is traced, and puts what is given in their places.

    Args:
        given: by point and place; may be abstract.
        taps: zeros, whose gradients are those that arrive; none while shapes are found out.
        nested: also what is called inside of units.
    """

    def __init__(
        self,
        given: Mapping[str, Any],
        units: Sequence[str],
        taps: Mapping[str, Any] | None = None,
        nested: bool = False,
    ) -> None:
        self.given, self.units, self.taps, self.nested = given, set(units), taps, nested
        self.points: list[dict[str, Any]] = []
        self.found: dict[str, Array] = {}
        self.shapes: dict[str, Any] = {}
        self.last, self.inside = "", 0

    @contextlib.contextmanager
    def looking(self, module: nnx.Module, directory: Path) -> Iterator[None]:
        """Calls of units and of known functions pass through here."""
        self.trace = jax.extend.core.get_opaque_trace_state()
        self.path_of = {id(node): ".".join(map(str, path)) for path, node in _modules(module)}
        with contextlib.ExitStack() as stack:
            for kind in {type(node) for _, node in _modules(module)}:
                if "__call__" in vars(kind):
                    stack.enter_context(_replaced(kind, "__call__", self._module(kind.__call__)))
            functions = {
                id(vars(source)[name]): self._function(vars(source)[name], name)
                for source in SOURCES
                for name in KINDS
                if name in vars(source)
            }
            for place in (*SOURCES, *_modules_in(directory), *(n for _, n in _modules(module))):
                for name, value in list(vars(place).items()):
                    if id(value) in functions and callable(value):
                        stack.enter_context(_replaced(place, name, functions[id(value)]))
            yield

    def _here(self) -> bool:
        """Whether this is seen: not inside of a unit, nor of a loop that is traced on its own."""
        return (self.nested or not self.inside) and (
            jax.extend.core.get_opaque_trace_state() == self.trace
        )

    def _module(self, original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def called(node: Any, *args: Any, **options: Any) -> Any:
            path = self.path_of.get(id(node))
            if path not in self.units or not self._here():
                return original(node, *args, **options)
            point = self._begin(path, type(node).__name__, settings(node))
            args = self._mapped(point, "in", args)
            self.inside += 1
            try:
                outputs = original(node, *args, **options)
            finally:
                self.inside -= 1
            if not self.inside:
                self.last = path
            return self._mapped(point, "out", outputs)

        return called

    def _function(self, original: Callable[..., Any], name: str) -> Callable[..., Any]:
        @functools.wraps(original)
        def called(*args: Any, **options: Any) -> Any:
            if self.inside or not args or not self._here():
                return original(*args, **options)
            plain = {k: v for k, v in options.items() if isinstance(v, int | float | str | bool)}
            point = self._begin(None, KINDS[name], plain)
            several = KINDS[name] == "scaled_dot_product"
            own = self._mapped(point, "in", args if several else args[:1])
            self.inside += 1
            try:
                outputs = original(*own, *args[len(own) :], **options)
            finally:
                self.inside -= 1
            return self._mapped(point, "out", outputs)

        return called

    def _begin(self, path: str | None, kind: str, config: Any) -> int:
        self.points.append({"path": path, "kind": kind, "config": config, "after": self.last})
        return len(self.points) - 1

    def _mapped(self, point: int, side: str, tree: Any) -> Any:
        leaves, structure = jax.tree.flatten(tree)
        put = [
            self.put(f"{point}.{side}.{place}", leaf) if isinstance(leaf, jax.Array) else leaf
            for place, leaf in enumerate(leaves)
        ]
        return jax.tree.unflatten(structure, put)

    def put(self, key: str, own: Array, prefix: str = "point.") -> Array:
        """Notes an array; what is given for it goes on in its place."""
        self.found[key] = own
        if not jnp.issubdtype(own.dtype, jnp.floating):
            return self.given.get(f"{prefix}{key}", own)
        self.shapes[key] = own
        given = self.given.get(f"{prefix}{key}")
        tap = None if self.taps is None else self.taps.get(key)
        if given is None or given.shape != own.shape:
            return own if tap is None else own + tap
        given = given.astype(own.dtype)
        gradient = self.given.get(f"{prefix}{key}.gradient", jnp.zeros_like(given))
        tap = jnp.zeros_like(given) if tap is None else tap
        return forced(own, given, gradient.astype(own.dtype), tap)


@contextlib.contextmanager
def _replaced(holder: Any, name: str, value: Any) -> Iterator[None]:
    before = vars(holder)[name]
    setattr(holder, name, value)
    try:
        yield
    finally:
        setattr(holder, name, before)


def _modules(module: nnx.Module) -> list[tuple[Any, Any]]:
    return [(path, node) for path, node in nnx.iter_graph(module) if isinstance(node, nnx.Module)]


def _modules_in(directory: Path) -> list[Any]:
    """The Python modules of the user's own: those whose files lie there."""
    found = []
    for each in list(sys.modules.values()):
        file = getattr(each, "__file__", None)
        if file and directory in Path(file).resolve().parents and "site-packages" not in file:
            found.append(each)
    return found


def _owner(module: nnx.Module, path: tuple[Any, ...]) -> tuple[Any, ...]:
    """The path of the innermost module that holds a tensor."""
    for length in range(len(path) - 1, 0, -1):
        if isinstance(at(module, path[:length]), nnx.Module) and not isinstance(
            at(module, path[:length]), nnx.List | nnx.Dict
        ):
            return path[:length]
    return ()


def settings(layer: Any) -> dict[str, Any]:
    """What a layer says of itself in numbers and words."""
    found = {}
    for name, value in vars(layer).items():
        if name.startswith("_") or callable(value):
            continue
        if isinstance(value, bool | int | float | str):
            found[name] = value
        elif isinstance(value, tuple | list) and all(isinstance(v, int) for v in value):
            found[name] = list(value)
    return found


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
    for path, node in _modules(model):
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
        for _, node in _modules(model)
        for name in ("use_running_average", "deterministic")
        if isinstance(vars(node).get(name), bool)
    ]
    return any(flags) if flags else None


def _fields(link: Any) -> list[tuple[str, Any]]:
    names = getattr(link, "_fields", map(str, range(len(link))))
    return list(zip(names, link, strict=True))


def _buffers(state: Any) -> dict[str, Any]:
    """What an optimizer keeps of a tensor, by torch's names."""
    found: dict[str, Any] = {}
    links = [state]
    while links:
        link = links.pop()
        names = BUFFERS.get(type(link).__name__)
        if names:
            found |= {torch: getattr(link, own) for own, torch in names.items()}
        elif isinstance(link, tuple):
            links += list(link)
    return found


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

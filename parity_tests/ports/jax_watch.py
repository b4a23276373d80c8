"""The points of a port's pass: noted while it is traced, with what is given put in their places.

A *point* is a call of a layer, or of an activation, pooling or softmax outside of the layers.
"""

import contextlib
import functools
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.extend.core
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array

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
        self.path_of = {id(node): ".".join(map(str, path)) for path, node in modules(module)}
        with contextlib.ExitStack() as stack:
            for kind in {type(node) for _, node in modules(module)}:
                if "__call__" in vars(kind):
                    stack.enter_context(_replaced(kind, "__call__", self._module(kind.__call__)))
            functions = {
                id(vars(source)[name]): self._function(vars(source)[name], name)
                for source in SOURCES
                for name in KINDS
                if name in vars(source)
            }
            for place in (*SOURCES, *_modules_in(directory), *(n for _, n in modules(module))):
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


def modules(module: nnx.Module) -> list[tuple[Any, Any]]:
    """Its parts and itself, with their paths."""
    return [(path, node) for path, node in nnx.iter_graph(module) if isinstance(node, nnx.Module)]


def _modules_in(directory: Path) -> list[Any]:
    """The Python modules of the user's own: those whose files lie there."""
    found = []
    for each in list(sys.modules.values()):
        file = getattr(each, "__file__", None)
        if file and directory in Path(file).resolve().parents and "site-packages" not in file:
            found.append(each)
    return found


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

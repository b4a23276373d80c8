"""A Flax NNX module as pure functions of its arrays, by name."""

from collections.abc import Callable, Iterator, Mapping
from types import SimpleNamespace
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array

NORMS = (nnx.BatchNorm, nnx.LayerNorm, nnx.RMSNorm, nnx.GroupNorm, nnx.InstanceNorm)

Arrays = dict[str, Array]  # by name
Path = tuple[Any, ...]  # of a graph


class FlaxModel:
    """What a module holds, told apart; `run` is the module as a pure function."""

    def __init__(self, module: nnx.Module) -> None:
        self.graph, state = nnx.split(module)
        self.flat = {_joined(path): (path, leaf) for path, leaf in nnx.to_flat_state(state)}
        # What is tied has many paths: the state's is its name, where it is defined its place.
        path_of = {id(node): path for path, node in nnx.iter_graph(module)}
        nodes = [node for node in _in_order(module, set()) if id(node) in path_of]
        order = dict.fromkeys(_joined(path_of[id(node)]) for node in nodes)
        names = [name for name in (order | dict.fromkeys(self.flat)) if name in self.flat]
        self.parameters = [name for name in names if self._is(name, nnx.Param)]
        self.statistics = [name for name in names if self._is(name, nnx.BatchStat)]
        self.constants = [
            name
            for name in names
            if not self._is(name, nnx.Param | nnx.BatchStat | nnx.RngState)
            and jnp.issubdtype(self._value(name).dtype, jnp.floating)
        ]
        norms = [path_of[id(node)] for node in nodes if isinstance(node, NORMS)]
        self.norms = {_joined((*path, "eps")): path for path in norms}
        embeddings = [path_of[id(node)] for node in nodes if isinstance(node, nnx.Embed)]
        self.embeddings = {_joined((*path, "embedding")) for path in embeddings}

    def _is(self, name: str, kind: Any) -> bool:
        return isinstance(self.flat[name][1], kind)

    def _value(self, name: str) -> Array:
        return self.flat[name][1].get_value()

    def values(self) -> Arrays:
        """All arrays of the module."""
        return {name: self._value(name) for name in self.flat}

    def eps(self) -> dict[str, float]:
        """Of every normalisation."""
        module = nnx.merge(self.graph, nnx.from_flat_state(self.flat.values()))
        return {name: float(at(module, path).epsilon) for name, path in self.norms.items()}

    def run(
        self,
        values: Mapping[str, Any],
        eps: Mapping[str, Any],
        inputs: Any,
        *,
        training: bool,
        double: bool = False,
        call: Callable[[Any, Any], Any] = lambda module, inputs: module(inputs),
    ) -> tuple[Any, Arrays]:
        """The outputs, and all arrays afterwards: running statistics and counts move on.

        Args:
            double: compute in float64 where layers would take another type.
            call: what is done with the module and the inputs, for who looks inside.
        """
        state = nnx.from_flat_state(
            [(path, leaf.replace(values[name])) for name, (path, leaf) in self.flat.items()]
        )
        module: Any = nnx.merge(self.graph, state)
        for name, path in self.norms.items():
            at(module, path).epsilon = eps[name]
        if double:
            _compute_in_float64(module)
        module.train() if training else module.eval()
        outputs = call(module, inputs)
        after = dict(nnx.to_flat_state(nnx.state(module)))
        return outputs, {name: after[path].get_value() for name, (path, _) in self.flat.items()}


def at(module: Any, path: Path) -> Any:
    """The part of a module at a path of its graph."""
    for key in path:
        attribute = isinstance(key, str) and not isinstance(module, dict)
        module = getattr(module, key) if attribute else module[key]
    return module


def _compute_in_float64(module: nnx.Module) -> None:
    for _, node in nnx.iter_graph(module):
        if isinstance(node, nnx.Module) and vars(node).get("dtype") is not None:
            node.dtype = jnp.float64  # pyright: ignore[reportAttributeAccessIssue]
        if isinstance(node, nnx.RNNCellBase):  # its states start in its parameters' type
            node.param_dtype = jnp.float64  # pyright: ignore[reportAttributeAccessIssue]
        attends = isinstance(node, nnx.MultiHeadAttention)
        if attends and node.attention_fn is nnx.dot_product_attention:
            node.attention_fn = _explicit_attention


def _explicit_attention(*arrays: Any, **options: Any) -> Any:
    """Flax' attention by the way that shows a module its weights, and here none looks.

    The other way is jax.nn's, whose softmax is in float32 whatever the arrays are: derivatives that
    are 0 came out as 4e-8 of the loss's.
    """
    unseen = SimpleNamespace(sow=lambda *_: None)
    return nnx.dot_product_attention(*arrays, **{**options, "module": unseen})


def _joined(path: Path) -> str:
    return ".".join(map(str, path))


def _in_order(node: Any, seen: set[int]) -> Iterator[Any]:
    """Modules and variables in the order in which attributes were set; shared ones once."""
    if id(node) in seen:
        return
    children: Any = ()
    if isinstance(node, nnx.List | list | tuple):
        children = node
    elif isinstance(node, nnx.Dict | dict):
        children = [node[key] for key in node]
    elif isinstance(node, nnx.Variable | nnx.Pytree):
        seen.add(id(node))
        yield node
        children = () if isinstance(node, nnx.Variable) else vars(node).values()
    for child in children:
        yield from _in_order(child, seen)

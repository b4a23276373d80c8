"""A Flax NNX module as pure functions of its arrays, by name."""

from collections.abc import Iterator, Mapping
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
        order = {_joined(path): node for path, node in _definition_order(module, (), set())}
        names = [name for name in order if name in self.flat]
        names += [name for name in self.flat if name not in order]
        self.parameters = [name for name in names if self._is(name, nnx.Param)]
        self.statistics = [name for name in names if self._is(name, nnx.BatchStat)]
        self.constants = [
            name
            for name in names
            if not self._is(name, nnx.Param | nnx.BatchStat | nnx.RngState)
            and jnp.issubdtype(self._value(name).dtype, jnp.floating)
        ]
        norms = {_joined(p): p for p, node in nnx.iter_graph(module) if isinstance(node, NORMS)}
        self.norms = {_joined((*norms[n], "eps")): norms[n] for n in order if n in norms}

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
    ) -> tuple[Any, Arrays]:
        """The outputs, and all arrays afterwards: running statistics and counts move on.

        Args:
            double: compute in float64 where layers were told another type.
        """
        state = nnx.from_flat_state(
            [(path, leaf.replace(values[name])) for name, (path, leaf) in self.flat.items()]
        )
        module: Any = nnx.merge(self.graph, state)
        for name, path in self.norms.items():
            at(module, path).epsilon = eps[name]
        if double:
            for _, node in nnx.iter_graph(module):
                if isinstance(node, nnx.Module) and getattr(node, "dtype", None) is not None:
                    node.dtype = jnp.float64  # pyright: ignore[reportAttributeAccessIssue]
        module.train() if training else module.eval()
        outputs = module(inputs)
        after = dict(nnx.to_flat_state(nnx.state(module)))
        return outputs, {name: after[path].get_value() for name, (path, _) in self.flat.items()}


def at(module: Any, path: Path) -> Any:
    """The part of a module at a path of its graph."""
    for key in path:
        module = getattr(module, key) if isinstance(key, str) else module[key]
    return module


def _joined(path: Path) -> str:
    return ".".join(map(str, path))


def _definition_order(node: Any, path: Path, seen: set[int]) -> Iterator[tuple[Path, Any]]:
    """Modules and variables in the order in which attributes were set; shared ones once."""
    if id(node) in seen:
        return
    children: Any = ()
    if isinstance(node, nnx.List | list | tuple):
        children = enumerate(node)
    elif isinstance(node, nnx.Dict | dict):
        children = node.items()
    elif isinstance(node, nnx.Variable | nnx.Pytree):
        seen.add(id(node))
        yield path, node
        children = () if isinstance(node, nnx.Variable) else vars(node).items()
    for key, child in children:
        yield from _definition_order(child, (*path, key), seen)

"""A port's optimizer: its steps, and what it keeps by the names that torch has for it."""

import contextlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from jaxmlp.networks.flax_network import FlaxNetwork

BUFFERS = {  # of optax's states, by their names: torch's names for what they keep
    "TraceState": {"trace": "momentum_buffer"},
    "MomentumState": {"buffer": "momentum_buffer"},
    "ScaleByAdamState": {"mu": "exp_avg", "nu": "exp_avg_sq"},
    "ScaleByRmsState": {"nu": "square_avg"},
    "ScaleByLionState": {"mu": "exp_avg"},
    "AdagradState": {"sum": "sum"},
}


class PortOptimizer:
    """jaxmlp's, with settings for each tensor, or a user's optax transformation of them all.

    Args:
        network: of jaxmlp's its settings, too.
        transformation: the user's; None if there is none.
    """

    def __init__(
        self, network: FlaxNetwork, transformation: optax.GradientTransformation | None
    ) -> None:
        self.network, self.transformation = network, transformation
        self.flat = network.model.flat

    def told(self) -> dict[str, Any]:
        """Its name, options and each tensor's settings; of a user's own nothing is known."""
        if self.transformation is not None:
            return {"name": "", "options": {}, "settings": {}}
        network = self.network
        return {
            "name": network.optimizer,
            "options": network.options,
            "settings": network.settings,
        }

    def initial(self, trained: Any) -> Any:
        """The optimizer's state before the first step."""
        if self.transformation is not None:
            return self.transformation.init(self._tree(trained))
        chain, settings = self.network.user_optimizer.chain, self.network.settings
        return {name: chain(own).init(trained[name]) for name, own in settings.items()}

    def stepped(self, grads: Any, state: Any, trained: Any) -> tuple[Any, Any]:
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

    def resumed(self, state: Any, put: Mapping[str, Any], steps: int) -> Any:
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

    def kept(self, state: Any) -> dict[str, Any]:
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

    def knows(self, state: Any) -> bool:
        """Whether all numbers that a state holds are among those kept."""
        floats = (leaf for leaf in jax.tree.leaves(state) if jnp.issubdtype(leaf, jnp.floating))
        return sum(leaf.size for leaf in floats) == sum(map(np.size, self.kept(state).values()))

    def _tree(self, tensors: Mapping[str, Any]) -> Any:
        """Tensors as nnx.state has them, which is what a user's transformation is made for."""
        return nnx.from_flat_state(
            [(self.flat[n][0], self.flat[n][1].replace(t)) for n, t in tensors.items()]
        )

    def _by_name(self, tree: Any) -> dict[str, Any]:
        names = {path: name for name, (path, _) in self.flat.items()}
        return {names[path]: leaf.get_value() for path, leaf in nnx.to_flat_state(tree)}


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

"""The points of an original's pass: noted while it runs, with the gradients that reach them.

A *point* is a call of a layer, or of an activation, pooling or softmax outside of the layers. Of a
point are told: what went in, what came out, and the gradients of the loss there.
"""

import itertools
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from parity_tests.ports import torch_layers, wire
from torchref.network_training import as_array


class Watch(TorchFunctionMode):
    """While entered, notes every point of a model's pass."""

    def __init__(self, model: nn.Module, units: Sequence[str]) -> None:
        super().__init__()
        self.points: list[dict[str, Any]] = []
        self.found: dict[str, Any] = {}
        self.inside: list[int] = []  # the unit that is running
        self.last = ""
        for path in units:
            layer = model.get_submodule(path)
            layer.register_forward_pre_hook(self._before(path), with_kwargs=True)
            layer.register_forward_hook(self._after(path))

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        options = kwargs or {}
        known = None
        if not self.inside and args and isinstance(args[0], Tensor):
            name = getattr(func, "__name__", "")
            known = torch_layers.function(name, args[0], args[1:], options)
        if known is None:
            return func(*args, **options)
        point = self._begin(None, *known)
        tensors = args if known[0] == "scaled_dot_product" else args[:1]
        own = self._noting(point, "in", tensors)
        options = {name: value for name, value in options.items() if name != "inplace"}
        return self._noting(point, "out", func(*own, *args[len(own) :], **options))

    def _begin(self, path: str | None, kind: str, config: Any) -> int:
        self.points.append({"path": path, "kind": kind, "config": config, "after": self.last})
        return len(self.points) - 1

    def _before(self, path: str) -> Any:
        def enter(layer: nn.Module, args: Any, kwargs: Any) -> Any:
            if self.inside:
                self.inside.append(-1)
                return None
            point = self._begin(path, *torch_layers.module(layer))
            self.inside.append(point)
            config = self.points[point]["config"]
            if isinstance(layer, nn.MultiheadAttention) and len(args) > 2:
                if all(each is args[0] for each in args[:3]):  # gradients of all go into one
                    (own,) = self._noting(point, "in", args[:1])
                    return (own, own, own, *args[3:]), self._attended(config, kwargs)
                config["cross"] = True
            return self._noting(point, "in", args), self._attended(config, kwargs)

        return enter

    def _attended(self, config: Any, kwargs: Any) -> Any:
        """Notes masks."""
        masks = [name for name in kwargs if "mask" in name and kwargs[name] is not None]
        if masks or kwargs.get("is_causal"):
            config["masked"] = True
        return kwargs

    def _after(self, path: str) -> Any:
        def leave(layer: nn.Module, args: Any, outputs: Any) -> Any:
            point = self.inside.pop()
            if point < 0:
                return None
            self.last = path
            return self._noting(point, "out", outputs)

        return leave

    def _noting(self, point: int, side: str, tree: Any) -> Any:
        """What goes in or comes out: copies, whose gradients are those of this point alone."""
        places = itertools.count()

        def one(value: Any) -> Any:
            if not isinstance(value, Tensor):
                return value
            key = f"{point}.{side}.{next(places)}"
            self.found[key] = value.detach().clone()
            return self._noted(value, key)

        return _mapped(one, tree)

    def _noted(self, value: Tensor, key: str) -> Tensor:
        """A copy in the graph; the gradient that reaches it is noted."""
        if not (value.is_floating_point() and value.requires_grad):
            return value.clone() if value.is_floating_point() else value
        noted = value.clone()
        noted.register_hook(lambda grad: self.found.update({f"{key}.gradient": grad.clone()}))
        return noted.clone()  # what alters it in place leaves the noted one alone

    def arrays(self) -> wire.Arrays:
        return {f"point.{key}": as_array(value) for key, value in self.found.items()}


class NoDropout(TorchFunctionMode):
    """While entered, functions of dropout do nothing: no two frameworks drop the same units."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        options = kwargs or {}
        if getattr(func, "__name__", "").endswith("dropout"):
            return args[0] if args else options["input"]
        if options.get("dropout_p"):
            options = {**options, "dropout_p": 0.0}
        return func(*args, **options)


def _mapped(function: Any, tree: Any) -> Any:
    """A function of every leaf of tuples and lists."""
    if isinstance(tree, tuple | list):
        return type(tree)(_mapped(function, each) for each in tree)
    return function(tree)

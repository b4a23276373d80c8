"""The original: a torch model in a process of its own, which tells what each of its layers does."""

import copy
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from jaxmlp.commands import setup_file
from parity_tests.ports import torch_layers, wire
from parity_tests.ports.torch_watch import NoDropout, Watch
from torchref import network_optimizer
from torchref.network import TorchNetwork
from torchref.network_tensors import Modes, seeded, statistics
from torchref.network_training import as_array

TYPES = {"float32": torch.float32, "float64": torch.float64}
WHOLE = (nn.MultiheadAttention, nn.RNNBase)  # layers, whatever they are made of inside


class Original:
    """The calls that this process answers."""

    def __init__(self) -> None:
        self.calls = {
            name: getattr(self, name)
            for name in ("setup", "values", "order", "record", "train", "step", "read")
        }

    def setup(
        self, given: str, examples: int, arrays: Any, seed: int | None = None
    ) -> tuple[Any, wire.Arrays]:
        """Sets the run up; tells its tensors, layers, optimizer, and the first batches.

        Args:
            seed: the function's argument of this name, if it is to have one.
        """
        arguments = {} if seed is None else {"seed": seed}
        parts = setup_file.parts(given, "--torch", **arguments)
        model, optimizer = parts[0], parts[1]
        check_finite(model)
        self.network = TorchNetwork(*parts)
        self.model, self.optimizer = copy.deepcopy(model), optimizer
        self.source = model
        self.loss, self.default_loss = self.network._loss_function, len(parts) == 3
        self.modes = Modes(model)
        self.rates = switch_off_dropout(self.model)
        self.examples = examples
        groups = network_optimizer.trained(model, optimizer)
        return {
            "tensors": self._tensors(),
            "batches": len(self.network.batches),
            "examples": len(self.batch(0)[0]),
            "default_loss": self.default_loss,
            "optimizer": {
                "name": self.network.optimizer,
                "options": self.network.options,
                "settings": {n: network_optimizer.settings_of(g) for n, (_, g) in groups.items()},
            },
            "dropout": self.rates,
            "training": model.training if _has_modes(model) else None,
        }, {}

    def _tensors(self) -> list[dict[str, Any]]:
        """Of every tensor: its name, shape, sort, and the layer that holds it."""
        layers = dict(self.model.named_modules())
        tracked, told = statistics(self.model), []
        sorts = [("parameter", dict(self.model.named_parameters())), ("statistic", tracked)]
        constants = {n: b for n, b in self.model.named_buffers() if n not in tracked}
        whole = [name for name, layer in layers.items() if isinstance(layer, WHOLE)]
        for sort, tensors in (*sorts, ("constant", constants)):
            for name, tensor in tensors.items():
                owner, _, local = name.rpartition(".")
                for outer in whole:
                    if owner.startswith(f"{outer}."):
                        owner, local = outer, name.removeprefix(f"{outer}.")
                kind, config = torch_layers.module(layers[owner])
                told.append(
                    {
                        "name": name,
                        "shape": list(tensor.shape),
                        "sort": sort,
                        "owner": owner,
                        "local": local,
                        "kind": kind,
                        "config": config,
                        "momentum": getattr(layers[owner], "momentum", None),
                    }
                )
        return told

    def values(self, arrays: Any) -> tuple[Any, wire.Arrays]:
        """All tensors at the start, the batches' first examples, and all of the first batch."""
        tensors = dict(self.source.named_parameters()) | dict(self.source.named_buffers())
        told = {f"tensor.{name}": as_array(tensor) for name, tensor in tensors.items()}
        for number in range(len(self.network.batches)):
            inputs, targets = self.batch(number)
            told |= {f"inputs.{number}": as_array(inputs), f"targets.{number}": as_array(targets)}
        return {}, told | {"first": as_array(self.network.batches[0][0])}

    def order(self, arrays: Any) -> tuple[Any, wire.Arrays]:
        """The paths of modules in the order of their first calls."""
        seen: dict[str, None] = {}
        model = copy.deepcopy(self.model)
        for path, layer in model.named_modules():
            layer.register_forward_pre_hook(lambda *_, path=path: seen.setdefault(path))
        with torch.no_grad(), seeded(0):
            model(self.batch(0)[0])
        return {"order": list(seen)}, {}

    def record(
        self, dtype: str, training: bool, number: int, units: Sequence[str], arrays: wire.Arrays
    ) -> tuple[Any, wire.Arrays]:
        """A forward and a backward pass: every point, all gradients, statistics afterwards.

        Args:
            units: paths of the modules that are looked at as one layer each.
            arrays: values to start from; the user's own where none is given.
        """
        model = self._copy(dtype, training, arrays)
        inputs, targets = self.batch(number)
        inputs = inputs.to(TYPES[dtype]) if inputs.is_floating_point() else inputs
        watch = Watch(model, units)
        with seeded(number), NoDropout(), watch:
            outputs = model(inputs)
        if not isinstance(outputs, Tensor):
            raise ValueError(f"the model returns a {type(outputs).__name__}; it has to be a tensor")
        kept = outputs.clone()
        kept.retain_grad()
        if targets.is_floating_point():
            targets = targets.to(TYPES[dtype])
        loss = self.loss(kept, targets)
        loss.backward()
        found = watch.arrays() | {"outputs": as_array(outputs), "loss": as_array(loss)}
        if kept.grad is not None:
            found["outputs.gradient"] = as_array(kept.grad)
        for name, parameter in model.named_parameters():
            if parameter.grad is not None:
                found[f"gradient.{name}"] = as_array(parameter.grad)
        found |= {f"statistic.{n}": as_array(t) for n, t in statistics(model).items()}
        return {"points": watch.points}, found

    def train(self, dtype: str, arrays: wire.Arrays) -> tuple[Any, wire.Arrays]:
        """Begins a run."""
        self.run = self._copy(dtype, True, arrays)
        copies = dict(self.run.named_parameters())
        groups = [
            group | {"params": [copies[name]]}
            for name, (_, group) in network_optimizer.trained(self.source, self.optimizer).items()
        ]
        self.stepped = network_optimizer.fresh(self.optimizer, groups)
        self.steps, self.dtype = 0, TYPES[dtype]
        return {}, {}

    def step(self, arrays: wire.Arrays, steps: int = 1) -> tuple[Any, wire.Arrays]:
        """So many steps of it; tells the last one's loss."""
        for _ in range(steps - 1):
            self._step()
        return {}, {"loss": as_array(self._step())}

    def _step(self) -> Tensor:
        inputs, targets = self.batch(self.steps % len(self.network.batches))
        inputs = inputs.to(self.dtype) if inputs.is_floating_point() else inputs
        targets = targets.to(self.dtype) if targets.is_floating_point() else targets
        with seeded(self.steps), NoDropout():
            loss = self.loss(self.run(inputs), targets)
        self.stepped.zero_grad()
        loss.backward()
        self.stepped.step()
        self.steps += 1
        return loss

    def read(self, sort: str, arrays: wire.Arrays) -> tuple[Any, wire.Arrays]:
        """What the last step left: its gradients, or tensors or the optimizer's state after it."""
        parameters, found = dict(self.run.named_parameters()), {}
        if sort == "tensor":
            found = parameters | statistics(self.run)
        for name, parameter in parameters.items():
            if sort == "gradient" and parameter.grad is not None:
                found[name] = parameter.grad
            if sort == "state":
                for key, value in self.stepped.state.get(parameter, {}).items():
                    if isinstance(value, Tensor) and value.shape == parameter.shape:
                        found[f"{key}.{name}"] = value
        return {}, {f"{sort}.{name}": as_array(tensor) for name, tensor in found.items()}

    def batch(self, number: int) -> tuple[Tensor, Tensor]:
        """The first examples of a batch."""
        inputs, targets = self.network.batches[number]
        return inputs[: self.examples].clone(), targets[: self.examples]

    def _copy(self, dtype: str, training: bool, arrays: Mapping[str, np.ndarray]) -> nn.Module:
        """The model in that type and mode, with its own values or those given."""
        model = copy.deepcopy(self.model).to(TYPES[dtype])
        tensors = dict(model.named_parameters()) | dict(model.named_buffers())
        with torch.no_grad():
            for name, array in arrays.items():
                tensors[name.removeprefix("tensor.")].copy_(torch.from_numpy(array.copy()))
        self.modes.set(model, training)
        return model


def _has_modes(model: nn.Module) -> bool:
    """Whether some layer does something else in evaluation mode."""
    return bool(statistics(model)) or any(
        isinstance(layer, nn.modules.dropout._DropoutNd) for layer in model.modules()
    )


def check_finite(model: Any) -> None:
    """Raises ValueError if a tensor holds a number that is none."""
    if not isinstance(model, nn.Module):
        return  # TorchNetwork says what it is
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        wrong = int((~torch.isfinite(tensor)).sum()) if tensor.is_floating_point() else 0
        if wrong:
            raise ValueError(
                f"{wrong} of the {tensor.numel()} numbers of {name} are not finite at the start"
            )


def switch_off_dropout(model: nn.Module) -> dict[str, float]:
    """Sets every rate of dropout to 0; the rates as they were, by path, where they were not 0."""
    rates = {}
    for path, layer in model.named_modules():
        for name in ("p", "dropout"):
            rate = getattr(layer, name, None)
            droops = isinstance(layer, nn.modules.dropout._DropoutNd)
            if isinstance(rate, float) and rate > 0 and (droops or isinstance(layer, WHOLE)):
                rates[path] = rate
                setattr(layer, name, 0.0)
    return rates


def main() -> None:
    torch.set_num_threads(max(1, (os.cpu_count() or 2) // 2))
    with wire.channel() as (asked, answers):
        wire.serve(Original().calls, asked, answers)


if __name__ == "__main__":
    main()

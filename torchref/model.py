"""The reference network in plain PyTorch."""

import itertools

import numpy as np
import torch
from torch import Tensor, nn

Layers = list[dict[str, np.ndarray]]  # kernel (fan_in, fan_out), with bias also (fan_out,)


class MLP(nn.Module):
    """Linear layers with ReLUs between them, with PyTorch's default initialisation."""

    def __init__(
        self, widths: tuple[int, ...], bias: bool, dtype: torch.dtype = torch.float32
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Linear(fan_in, fan_out, bias=bias, dtype=dtype)
            for fan_in, fan_out in itertools.pairwise(widths)
        )

    def forward(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The logits (batch, classes), and the activations (batch, width) of each hidden layer."""
        activations, hidden = images.flatten(start_dim=1), []
        for layer in self.layers[:-1]:
            activations = nn.functional.relu(layer(activations))
            hidden.append(activations)
        return self.layers[-1](activations), hidden


def scale_weights(model: MLP, factors: dict[str, tuple[float, ...]]) -> None:
    """Multiplies each layer's kernel, and its bias, by a factor of its own."""
    with torch.no_grad():
        for i, layer in enumerate(model.layers):
            for name, parameter in named(layer):
                parameter.mul_(factors[name][i])


def get_weights(model: MLP) -> Layers:
    """Copies of the parameters, each kernel (fan_in, fan_out), the transpose of torch's weight."""
    return [
        {name: array.numpy(force=True).T.copy() for name, array in named(layer)}
        for layer in model.layers
    ]


def set_weights(model: MLP, weights: Layers) -> None:
    """Gives the model the values that `get_weights` would then return.

    Raises:
        ValueError: the number of layers, a name or a shape is not the model's.
    """
    wanted = [{n: tuple(p.shape)[::-1] for n, p in named(layer)} for layer in model.layers]
    given = [{n: np.shape(array) for n, array in layer.items()} for layer in weights]
    if given != wanted:
        raise ValueError(f"weights of shapes {given} do not fit a model of shapes {wanted}")
    with torch.no_grad():
        for layer, values in zip(model.layers, weights, strict=True):
            for name, parameter in named(layer):
                parameter.copy_(torch.from_numpy(values[name].T.copy()))


def named(layer: nn.Module) -> list[tuple[str, nn.Parameter]]:
    """Parameters under the names of weight arrays: kernel, bias."""
    names = {"weight": "kernel", "bias": "bias"}
    return [(names[name], parameter) for name, parameter in layer.named_parameters()]


def relative_distance(expected: np.ndarray, values: np.ndarray) -> float:
    """The L2 norm of the difference over that of what was expected; of arrays of one dtype."""
    wanted = torch.from_numpy(expected)
    norm = torch.linalg.norm
    return float(norm(torch.from_numpy(values) - wanted) / norm(wanted))

"""Which units are off: every ReLU that a model calls, by module or by function."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

RELUS = {
    torch.relu,
    torch.relu_,
    Tensor.relu,
    Tensor.relu_,
    nn.functional.relu_,
    nn.functional.relu6,
}


class DeadUnits(TorchFunctionMode):
    """While it is entered, notes of each ReLU's units which are off in the whole batch.

    `shares`: by name (relu1, relu2, ..., in the order of their calls), their share.
    """

    def __init__(self) -> None:
        super().__init__()
        self.shares: dict[str, float] = {}

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        output = func(*args, **(kwargs or {}))
        if func in RELUS or (func is nn.functional.relu):
            self.shares.setdefault(f"relu{len(self.shares) + 1}", _dead_share(output))
        return output


@torch.no_grad()
def _dead_share(output: Tensor) -> float:
    """Units are channels of images, else features, which come last."""
    units = output.detach().movedim(1 if output.ndim == 4 else -1, 0).flatten(1)
    return float((units <= 0).all(dim=1).float().mean())

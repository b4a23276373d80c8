"""A user's network, whichever framework it is written in."""

from collections.abc import Callable, Iterable
from typing import Any

from jaxmlp.networks.protocol import Network


def network(
    model: Any,
    optimizer: Any,
    batches: Iterable[Any],
    loss: Callable[[Any, Any], Any] | None = None,
    *,
    clip_global_norm: float | None = None,
) -> Network:
    """A model with its optimizer, batches and loss, for explain, transport, certify and forecast.

    Nothing of it is altered but by `transport(...).apply()`.

    Args:
        model: a torch.nn.Module or a flax.nnx.Module; called as model(inputs).
        optimizer: a torch.optim optimizer, or for Flax a jaxmlp.Optimizer.
        batches: pairs of inputs and targets; the first hundred are kept.
        loss: of outputs and targets, a scalar; default: cross-entropy.
        clip_global_norm: what the norm of all gradients together is clipped to, if it is.

    Raises:
        ValueError: something else is given, or the model does not run; the message says which.
    """
    made_by = {kind.__module__.partition(".")[0] for kind in type(model).__mro__}
    arguments = (model, optimizer, batches, loss, clip_global_norm)
    if "torch" in made_by:
        from torchref.network import TorchNetwork

        return TorchNetwork(*arguments)
    if "flax" in made_by:
        from jaxmlp.networks.flax_network import FlaxNetwork

        return FlaxNetwork(*arguments)
    raise ValueError(
        f"the model is a {type(model).__name__}; give a torch.nn.Module or a flax.nnx.Module"
    )

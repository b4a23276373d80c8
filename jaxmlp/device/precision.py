"""What an experiment's precision means to the compiler."""

import contextlib
from collections.abc import Iterator

import jax
import jax.numpy as jnp

from jaxmlp.experiment import Experiment

MATMUL = {
    "float32": "highest",
    "float64": "highest",
    "tf32": "tensorfloat32",
    "bfloat16": "bfloat16",
}


def float_dtype(experiment: Experiment):
    """The floating-point type of every array of the run."""
    return jnp.float64 if experiment.precision == "float64" else jnp.float32


@contextlib.contextmanager
def precision(experiment: Experiment, platform: str | None = None) -> Iterator[None]:
    """Matrix products at the experiment's precision, inside this context.

    Args:
        platform: that is compiled for, if not this machine's.

    Raises:
        ValueError: the device has no such products, so that asking for them would do nothing.
    """
    platform = platform or jax.default_backend()
    has = {"tf32": ("gpu",), "bfloat16": ("gpu", "tpu"), "float64": ("cpu", "gpu")}
    if platform not in has.get(experiment.precision, (platform,)):
        raise ValueError(
            f"precision {experiment.precision} does not exist on {platform}; choose float32"
        )
    with (
        jax.enable_x64(experiment.precision == "float64"),
        jax.default_matmul_precision(MATMUL[experiment.precision]),
    ):
        yield

"""The device's arithmetic: what the experiment's precision means to the compiler."""

import contextlib
import os
import warnings
from collections.abc import Iterator

import jax
import jax.numpy as jnp

from jaxmlp import data
from jaxmlp.experiment import Experiment

MATMUL = {"float32": "highest", "float64": "highest", "tf32": "tensorfloat32",
          "bfloat16": "bfloat16"}  # fmt: skip


def dtype(experiment: Experiment):
    """The floating-point type of every array of the run."""
    return jnp.float64 if experiment.precision == "float64" else jnp.float32


@contextlib.contextmanager
def precision(experiment: Experiment) -> Iterator[None]:
    """Matrix products at the experiment's precision, inside this context.

    Raises:
        ValueError: the device has no such products, so that asking for them would do nothing.
    """
    platform = jax.default_backend()
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


def describe() -> str:
    """The device a run takes: platform, and kind where that says more."""
    device = jax.devices()[0]
    kind = device.device_kind
    return device.platform if kind == device.platform else f"{device.platform} ({kind})"


def use_compilation_cache() -> None:
    """Keeps compiled programs on disk between processes, unless the user has said where or not.

    JAX verifies what it reads back and compiles anew what does not fit this machine.
    """
    if "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return
    directory = data.cache_directory(None) / "xla"
    with contextlib.suppress(OSError):  # no place to keep them: every process compiles
        directory.mkdir(parents=True, exist_ok=True)
        warnings.filterwarnings("ignore", "Error .* persistent compilation cache", UserWarning)
        jax.config.update("jax_compilation_cache_dir", str(directory))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)

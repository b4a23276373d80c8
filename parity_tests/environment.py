"""What both sides compute with: set, asserted, and said."""

import importlib.metadata
import os
import platform
from typing import Any

PACKAGES = ("jax", "jaxlib", "flax", "optax", "torch", "torchvision", "numpy")


def limit_threads(threads: int) -> None:
    """One or more threads for both sides; before JAX starts, which counts the CPUs it may use."""
    import torch

    if hasattr(os, "sched_setaffinity"):
        allowed = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, allowed[:threads])
    torch.set_num_threads(threads)


def settle() -> None:
    """Float32 means float32: no TF32 or bfloat16 in torch; JAX's precision stands in each run.

    Raises:
        RuntimeError: something outside asks for looser products.
    """
    import torch

    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    if os.environ.get("NVIDIA_TF32_OVERRIDE", "0") != "0":
        raise RuntimeError("NVIDIA_TF32_OVERRIDE asks for TF32 products; unset it")
    if "--xla_cpu_enable_fast_math=true" in os.environ.get("XLA_FLAGS", ""):
        raise RuntimeError("XLA_FLAGS asks for fast mathematics; unset it")
    assert torch.get_float32_matmul_precision() == "highest"
    assert not torch.backends.cuda.matmul.allow_tf32


def jax_setting(name: str) -> Any:
    """As it is now; JAX's stubs name none."""
    import jax

    return getattr(jax.config, f"jax_{name}")


def describe() -> dict[str, str]:
    """What the header of the suite says."""
    import torch

    from jaxmlp.device.mesh import describe_devices
    from jaxmlp.device.precision import precision
    from jaxmlp.experiment import Experiment

    with precision(Experiment()):
        products = jax_setting("default_matmul_precision")
        assert products == "highest"
    cpus = os.cpu_count()
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else cpus
    return {
        "versions": ", ".join(f"{name} {importlib.metadata.version(name)}" for name in PACKAGES),
        "machine": f"{platform.system()} {platform.machine()}, {allowed} of {cpus} CPUs",
        "jax": (
            f"on {describe_devices()}, products {products}, "
            f"{'jitted' if not jax_setting('disable_jit') else 'not jitted'}, "
            f"x64 {'on' if jax_setting('enable_x64') else 'off, on where a check is in float64'}"
        ),
        "torch": (
            f"{torch.get_num_threads()} threads, products {torch.get_float32_matmul_precision()}, "
            f"TF32 {'on' if torch.backends.cuda.matmul.allow_tf32 else 'off'}"
        ),
        "XLA_FLAGS": os.environ.get("XLA_FLAGS", "none"),
    }

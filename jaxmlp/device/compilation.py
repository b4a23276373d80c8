"""Compiled programs kept on disk between processes."""

import contextlib
import os
import warnings

import jax

from jaxmlp.data.array_cache import cache_directory


def use_compilation_cache() -> None:
    """Keeps compiled programs on disk between processes, unless the user has said where or not.

    JAX verifies what it reads back and compiles anew what does not fit this machine.

    Raises:
        ValueError: there is no such device as JAX_PLATFORMS asks for.
    """
    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:
        raise ValueError(
            f"JAX_PLATFORMS={os.environ.get('JAX_PLATFORMS', '')}: JAX finds no such device "
            f"({str(error).partition('(')[0].strip() or 'none'}); unset it, or choose cpu"
        ) from error
    if "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return
    directory = cache_directory(None) / "xla"
    with contextlib.suppress(OSError):  # no place to keep them: every process compiles
        directory.mkdir(parents=True, exist_ok=True)
        warnings.filterwarnings("ignore", "Error .* persistent compilation cache", UserWarning)
        jax.config.update("jax_compilation_cache_dir", str(directory))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)

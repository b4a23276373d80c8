"""The record of a run: what its directory holds, the schema of result.json, and how it is made.

    result.json   the record, schema below
    steps.npz     per step: loss (steps,), grad_norm (steps, layers), dead (steps, hidden layers)
    params.npz    final parameters: layer1.kernel (fan_in, fan_out), layer1.bias (fan_out,), ...
    *.png         figures, made by run_figures.py from the three above
    SHA256SUMS    digests of all these, which every reader checks, and `sha256sum -c` can

result.json, schema 3 (step i of steps.npz, from 0, is step i + 1 of the text; a step's metrics are
those of its batch before the update; numbers that are not finite are the strings "NaN",
"Infinity", "-Infinity"):

    schema        3
    framework     "jax" or "torch"
    case          name of the question's case, or "custom"
    finished      false if the run was interrupted: `epochs` holds what was finished
    experiment    Experiment.to_json()
    layers        per layer: name, fan_in, fan_out, init_bound (of the uniform default
                  initialisation), and each per-layer setting, resolved; with biases also
                  bias_init_scale, bias_learning_rate, bias_weight_decay, bias_eps
    data          name, source, sha256 of all arrays, train_size, test_size, classes, and shape
                  (channels, height, width)
    environment   versions, operating system, device, and what steers the compiler
    epochs        per epoch: epoch (from 1), train_loss and train_accuracy (mean over its batches,
                  while training), test_loss, test_accuracy, and per hidden layer dead (fraction of
                  units that no test image activates) and silent (fraction of test images that
                  activate no unit)
    outcome       trained, stalled, dead or nonfinite (outcomes.py)
    diagnostics   spike (largest step loss / first), per hidden layer dead (of the last epoch),
                  worst_dead (of all epochs), collapse_step (from which on at least 99 % of its
                  units are dead in every batch, or null) and all_dead_step (the same for all its
                  units), and first_nonfinite_step (or null)
    verdict       the outcome in a sentence or two
    canonical     which run it is, whatever its input scale (law/canonical.py): learning_rate
                  (R), and per layer init_scale (κ), decay (δ), eps, with biases their own; null
                  with a learning rate of 0
    explanation   the same in words, beside the run with unscaled inputs and default settings
    forecast      what was foretold before the first step (forecast.py): sharpness (S on a sample
                  of `images` training images), limit, ratio (S / limit), rehearsed_steps, the
                  probabilities `diverges` and `fails`, and course (stable, recovers, fails); null
                  where nothing was foretold
    timings       the one part that differs between two runs of one experiment: started (UTC),
                  setup, compile, train and epoch seconds, images per second (median epoch)
"""

import contextlib
import hashlib
import importlib.metadata
import io
import itertools
import json
import math
import os
import platform
import statistics
from pathlib import Path
from typing import Any

import numpy as np

from jaxmlp.data.dataset import Dataset
from jaxmlp.experiment import PER_TENSOR, Experiment
from jaxmlp.law import explanation
from jaxmlp.law.canonical import canonical_section
from jaxmlp.record import outcomes
from jaxmlp.record.saved_record import SCHEMA, read
from jaxmlp.torch_rng import init_bound

PER_LAYER = (*PER_TENSOR, "schedule", "warmup_epochs", "gamma")
STEERING = ("XLA_FLAGS", "JAX_PLATFORMS", "OMP_NUM_THREADS", "PJRT_NPROC", "NVIDIA_TF32_OVERRIDE")
JAX_PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy")  # whose versions a record holds
MOST_NAME_BYTES = 100  # of a data set's name in a directory's, of which a file system takes 255
FLOAT64_BYTES = 8


def layers(experiment: Experiment, widths: tuple[int, ...]) -> list[dict[str, Any]]:
    """Each layer's name, shape and resolved settings."""
    names = [name for name in PER_LAYER if getattr(experiment, name) is not None]
    if experiment.bias:
        names += [f"bias_{name}" for name in PER_TENSOR if getattr(experiment, name) is not None]
    sections = []
    for i, (fan_in, fan_out) in enumerate(itertools.pairwise(widths)):
        shape = {"name": f"layer{i + 1}", "fan_in": fan_in, "fan_out": fan_out}
        settings = {name: experiment.per_layer(name)[i] for name in names}
        sections.append({**shape, "init_bound": init_bound(fan_in), **settings})
    return sections


def environment(device: str, packages: tuple[str, ...]) -> dict[str, Any]:
    """Versions, machine and compiler settings; no names of hosts, users or paths."""
    return {
        "device": device,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cpus": os.cpu_count(),
        "versions": {name: importlib.metadata.version(name) for name in packages},
        "settings": {name: os.environ[name] for name in STEERING if name in os.environ},
    }


def data_section(dataset: Dataset) -> dict[str, Any]:
    """What the record says of the data."""
    return {
        "name": dataset.name,
        "source": dataset.source,
        "sha256": dataset.sha256,
        "train_size": len(dataset.train_labels),
        "test_size": len(dataset.test_labels),
        "shape": list(dataset.train_images.shape[1:]),
        "classes": dataset.classes,
    }


def data_word(section: dict[str, Any]) -> str:
    """What names a record's data after --data; PATH for a user's file, which the record has not.

    Args:
        section: as `data_section` makes it.
    """
    return "PATH" if section["source"].startswith("the user's file") else section["name"]


def timings(started: str, setup: float, compiling: float, epochs: list[float], images: int):
    """The record's timings: seconds, and training images per second in the median epoch."""
    return {
        "started": started,
        "setup_seconds": setup,
        "compile_seconds": compiling,
        "train_seconds": sum(epochs),
        "epoch_seconds": epochs,
        "images_per_second": images / statistics.median(epochs),
    }


def build(
    *,
    framework: str,
    case: str,
    experiment: Experiment,
    dataset: Dataset,
    environment: dict[str, Any],
    rows: list[dict[str, Any]],
    steps: dict[str, np.ndarray],
    params: list[dict[str, Any]],
    forecast: dict[str, Any] | None,
    timings: dict[str, Any],
) -> tuple[dict[str, Any], dict[str, np.ndarray], dict[str, np.ndarray]]:
    """The record, and the arrays of steps.npz and of params.npz: what a Result is made of.

    Args:
        rows: of the finished epochs, at least one.
        steps: as steps.npz holds them.
        params: a layer each, kernel (fan_in, fan_out) and bias.
        forecast: Forecast.to_json(), if one was made.
    """
    arrays = flatten(params)
    finite = all(bool(np.isfinite(array).all()) for array in arrays.values())
    result = {
        "schema": SCHEMA,
        "framework": framework,
        "case": case,
        "finished": len(rows) == experiment.epochs,
        "experiment": experiment.to_json(),
        "layers": layers(experiment, dataset.widths(experiment.hidden)),
        "data": data_section(dataset),
        "environment": environment,
        "epochs": rows,
        "outcome": outcomes.outcome(dataset.classes, steps, rows, finite),
        "diagnostics": outcomes.diagnostics(steps, rows),
    }
    result["verdict"] = outcomes.verdict(result, steps)
    result["canonical"] = canonical_section(experiment)
    result["explanation"] = explanation.which_run(experiment, explanation.baseline(experiment))
    result["forecast"] = forecast
    result["timings"] = timings
    return result, steps, arrays


def params_size(experiment: Experiment, dataset: Dataset) -> int:
    """Bytes of params.npz, at most."""
    widths = dataset.widths(experiment.hidden)
    params = sum((fan_in + 1) * fan_out for fan_in, fan_out in itertools.pairwise(widths))
    return FLOAT64_BYTES * params


def encode(result: dict[str, Any]) -> str:
    """The record as strict JSON."""
    return json.dumps(_plain(result), indent=2, allow_nan=False) + "\n"


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value


def archive(arrays: dict[str, np.ndarray]) -> bytes:
    """The bytes of an .npz."""
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # pyright: ignore[reportArgumentType]
    return buffer.getvalue()


def flatten(params: list[dict[str, Any]]) -> dict[str, np.ndarray]:
    """Parameters by name: layer1.kernel, layer1.bias, layer2.kernel, ..."""
    return {
        f"layer{i + 1}.{name}": np.asarray(value)
        for i, layer in enumerate(params)
        for name, value in layer.items()
    }


def default_directory(
    framework: str, case: str, experiment: Experiment, dataset_name: str, sha256: str
) -> Path:
    """runs/CASE-DATA-FRAMEWORK-HASH; the hash is of the experiment and the data together."""
    digest = hashlib.sha256((experiment.sha256 + sha256).encode()).hexdigest()
    short = os.fsencode(dataset_name)[:MOST_NAME_BYTES].decode(errors="ignore")
    return Path("runs") / f"{case}-{short}-{framework}-{digest[:10]}"


def differing(
    result: dict[str, Any], framework: str, experiment: Experiment, sha256: str | None
) -> list[str]:
    """What makes a record another run's: "framework", names of settings, "data".

    Args:
        sha256: of the data; None while they are not known.
    """
    here, there = experiment.to_json(), result["experiment"]
    with contextlib.suppress(ValueError, TypeError):  # else it is compared as it stands
        there = Experiment.from_json(there).to_json()
    names = [name for name in here | there if here.get(name) != there.get(name)]
    if result["framework"] != framework:
        names.insert(0, "framework")
    if sha256 not in (None, result["data"]["sha256"]):
        names.append("data")
    return names


def finished(
    out: Path, framework: str, experiment: Experiment, sha256: str
) -> dict[str, Any] | None:
    """The record that stands there, if it is a finished one of this run."""
    try:
        there = read(out)
    except ValueError:
        return None
    same = not differing(there, framework, experiment, sha256)
    return there if same and there["finished"] else None

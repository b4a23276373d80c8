"""A record from the disk: every byte verified, every value of the shape that its readers need."""

import io
import itertools
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from jaxmlp.experiment import Experiment, parse_number
from jaxmlp.record import run_files
from jaxmlp.record.outcomes import OUTCOMES

SCHEMA = 3
NOT_FINITE = ("NaN", "Infinity", "-Infinity")  # as the record writes such numbers

Arrays = dict[str, np.ndarray]


def read(directory: Path) -> dict[str, Any]:
    """A record's result.json.

    Args:
        directory: a run's, or the path of the result.json in it.

    Raises:
        ValueError: it is no record of a run, damaged, or of another schema; one line.
    """
    return _checked(directory, lambda files: _result(files["result.json"]))


def load(directory: Path) -> tuple[dict[str, Any], Arrays, Arrays]:
    """A whole record: result, steps, parameters.

    Raises:
        ValueError: as `read`.
    """

    def everything(files: dict[str, bytes]) -> tuple[dict[str, Any], Arrays, Arrays]:
        result = _result(files["result.json"])
        steps, params = (_arrays(files[name]) for name in ("steps.npz", "params.npz"))
        _check_arrays(result, steps, params)
        return result, steps, params

    return _checked(directory, everything)


def _checked(directory: Path, parse: Callable[[dict[str, bytes]], Any]) -> Any:
    out = directory.parent if directory.name == "result.json" else directory
    try:
        if not run_files.is_sealed(out):
            _check_schema(json.loads(run_files.content(out, "result.json")))
        return parse(run_files.read(out))
    except Exception as error:  # what was edited, or never ours, makes the parsers raise anything
        told = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(
            f"{directory} is no record of a run: {told}; give a run's directory"
        ) from error


def _check_schema(result: Any) -> None:
    if not isinstance(result, dict) or "schema" not in result:
        raise ValueError("schema is missing")
    if result["schema"] != SCHEMA:
        raise ValueError(f"it has schema {result['schema']!r:.20}, this reads {SCHEMA}")


# ---- result.json


def _number(value: Any) -> bool:
    whole = isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63
    return whole or (isinstance(value, float) and math.isfinite(value))


def _metric(value: Any) -> bool:
    return _number(value) or value in NOT_FINITE


def _text(value: Any) -> bool:
    return isinstance(value, str)


def _count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value < 2**63


def _share(value: Any) -> bool:
    return _number(value) and 0 <= value <= 1


def _step(value: Any) -> bool:
    return value is None or _count(value)


def _section(value: Any) -> bool:
    return isinstance(value, dict)


def _optional(value: Any) -> bool:
    return value is None or isinstance(value, dict)


# What its readers need. A dict: these names, perhaps others; a list: any number of such things.
SHAPE: dict[str, Any] = {
    "schema": SCHEMA.__eq__,
    "framework": ("jax", "torch").__contains__,
    "case": _text,
    "finished": lambda value: isinstance(value, bool),
    "experiment": _section,
    "layers": [{"name": _text, "fan_in": _count, "fan_out": _count}],
    "data": {
        "name": _text,
        "source": _text,
        "sha256": _text,
        "train_size": _count,
        "test_size": _count,
        "shape": [_count],
        "classes": _count,
    },
    "environment": {"device": _text, "versions": _section},
    "epochs": [
        {
            "epoch": _count,
            "train_loss": _metric,
            "train_accuracy": _share,
            "test_loss": _metric,
            "test_accuracy": _share,
            "dead": [_share],
            "silent": [_share],
        }
    ],
    "outcome": OUTCOMES.__contains__,
    "diagnostics": {
        "spike": _metric,
        "dead": [_share],
        "worst_dead": [_share],
        "collapse_step": [_step],
        "all_dead_step": [_step],
        "first_nonfinite_step": _step,
    },
    "verdict": _text,
    "canonical": _optional,
    "explanation": _text,
    "forecast": _optional,
    "timings": {
        "setup_seconds": _number,
        "compile_seconds": _number,
        "train_seconds": _number,
        "epoch_seconds": [_number],
        "images_per_second": _number,
    },
}


def _check_shape(value: Any, shape: Any, where: str) -> None:
    if isinstance(shape, dict):
        if not isinstance(value, dict):
            raise ValueError(f"{where or 'it'} is {value!r:.40} and should be a section")
        for name, inner in shape.items():
            inside = f"{where}.{name}".lstrip(".")
            if name not in value:
                raise ValueError(f"{inside} is missing")
            _check_shape(value[name], inner, inside)
    elif isinstance(shape, list):
        if not isinstance(value, list):
            raise ValueError(f"{where} is {value!r:.40} and should be a list")
        for i, inner in enumerate(value):
            _check_shape(inner, shape[0], f"{where}[{i}]")
    elif shape(value) is not True:
        raise ValueError(f"{where} cannot be {value!r:.40}")


def _result(content: bytes) -> dict[str, Any]:
    """The record, if it holds together.

    Raises:
        ValueError: it does not.
    """

    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is no JSON")

    result = json.loads(content, parse_constant=refuse, parse_float=parse_number)
    _check_schema(result)
    _check_shape(result, SHAPE, "")
    experiment = Experiment.from_json(result["experiment"])
    result["experiment"] = experiment.to_json()  # as it is, but for settings that were left out
    _check_layers(result, experiment)
    _check_epochs(result, experiment)
    return result


def _check_layers(result: dict[str, Any], experiment: Experiment) -> None:
    shape, classes = result["data"]["shape"], result["data"]["classes"]
    if len(shape) != 3:
        raise ValueError("data.shape is not channels, height and width")
    widths = [math.prod(shape), *experiment.hidden, classes]
    recorded = [(layer["name"], layer["fan_in"], layer["fan_out"]) for layer in result["layers"]]
    expected = [
        (f"layer{number}", fan_in, fan_out)
        for number, (fan_in, fan_out) in enumerate(itertools.pairwise(widths), 1)
    ]
    if recorded != expected:
        raise ValueError("its layers are not those of its experiment on its data")


def _check_epochs(result: dict[str, Any], experiment: Experiment) -> None:
    epochs = [row["epoch"] for row in result["epochs"]]
    if not epochs or epochs != list(range(1, len(epochs) + 1)) or len(epochs) > experiment.epochs:
        raise ValueError("its epochs are not 1, 2, 3, ... of those that it asked for")
    # Whatever is a list in these sections has one value per hidden layer.
    per_layer = [row[name] for row in result["epochs"] for name in ("dead", "silent")]
    per_layer += [value for value in result["diagnostics"].values() if isinstance(value, list)]
    if any(len(values) != len(experiment.hidden) for values in per_layer):
        raise ValueError("it does not have one value per hidden layer")


# ---- arrays


def _arrays(content: bytes) -> Arrays:
    with np.load(io.BytesIO(content), allow_pickle=False) as archive:
        return dict(archive)


def _check_arrays(result: dict[str, Any], steps: Arrays, params: Arrays) -> None:
    layers, data = result["layers"], result["data"]
    count = len(result["epochs"]) * (data["train_size"] // result["experiment"]["batch_size"])
    shapes: dict[str, tuple[int, ...]] = {
        "loss": (count,),
        "grad_norm": (count, len(layers)),
        "dead": (count, len(layers) - 1),
    }
    _check_shapes("steps.npz", steps, shapes)
    shapes = {f"{layer['name']}.kernel": (layer["fan_in"], layer["fan_out"]) for layer in layers}
    if result["experiment"]["bias"]:
        shapes |= {f"{layer['name']}.bias": (layer["fan_out"],) for layer in layers}
    _check_shapes("params.npz", params, shapes)


def _check_shapes(name: str, arrays: Arrays, shapes: dict[str, tuple[int, ...]]) -> None:
    there = {key: array.shape for key, array in arrays.items()}
    if there != shapes or any(array.dtype.kind != "f" for array in arrays.values()):
        raise ValueError(f"{name} does not hold the arrays of its experiment")

"""Runs and sweeps as TensorBoard's event files, from what they left on disk.

An event file is a list of framed events; tensorboardX knows their fields and check sums, and is
imported only when one is written. Its own writer is not used: it names the host, and loses in a
thread what a full disk refuses. Scalars are float32, as TensorBoard's readers expect them.
"""

import hashlib
import itertools
import json
import re
import struct
from collections.abc import Iterable, Iterator
from datetime import datetime
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxmlp import atomic
from jaxmlp.experiment import PER_TENSOR
from jaxmlp.record import run_files, saved_record, sweep_files

FILE = "events.out.tfevents.0."  # and whose it is; the readers know such a file by this name
VERSION = "brain.Event:2"  # of the format, in the first event
SHAPE = ("name", "fan_in", "fan_out", "init_bound")  # what of a layer is no setting
METRICS = ("train_loss", "train_accuracy", "test_loss", "test_accuracy")
KAPPA = re.compile(r"canonical_init_scale_(\d+)")  # a column of a sweep's; likewise:
PER_LAYER = re.compile(rf"((?:bias_)?(?:{'|'.join(PER_TENSOR)}))_(\d+)")
RGBA = 4  # what TensorBoard calls the kind of PNG that matplotlib writes

Scalars = dict[str, float]
Settings = dict[str, str | float]


class Point(NamedTuple):
    """What is drawn at one place of the horizontal axis."""

    time: float  # seconds since 1970
    step: int
    scalars: Scalars


def write_run(root: Path, out: Path) -> Path:
    """Writes the record that `out` holds below `root`, and returns the run's directory there.

    Raises:
        ValueError: out holds no record.
        OSError: the disk is full or cannot be written; no part of a file stays.
    """
    record, steps, _ = saved_record.load(out)
    files = run_files.read(out)
    figures = {name: files[name] for name in run_files.FIGURES if name in files}
    whose = [record["framework"], record["experiment"], record["data"]["sha256"]]
    identity = hashlib.sha256(json.dumps(whose).encode()).hexdigest()[:10]
    directory = place(root, out, identity)
    _write(directory, identity, of_run(record, steps, figures))
    return directory


def write_sweep(root: Path, out: Path) -> Path:
    """Writes the finished sweep that `out` holds, a directory each run, and returns theirs.

    Raises:
        ValueError: out holds no finished sweep.
        OSError: as `write_run`.
    """
    plan, runs, curves = sweep_files.load(out)
    identity = plan["identity"][:10]
    directory = place(root, out, identity)
    epochs = itertools.groupby(curves.to_pylist(), lambda row: row["run"])
    for row, (_, rows) in zip(runs.to_pylist(), epochs, strict=True):
        content = of_sweep_run(plan, row, list(rows))
        _write(directory / f"run-{row['run']:05d}", identity, content)
    return directory


def place(root: Path, out: Path, identity: str) -> Path:
    """Where a run or a sweep goes: below `root`, by its own directory's name.

    The same run, repeated, replaces itself. Another of that name has its identity in the name.
    """
    directory = root / out.resolve().name
    others = (path for path in directory.rglob(f"{FILE}*") if path.name != FILE + identity)
    return directory.with_name(f"{directory.name}-{identity}") if any(others) else directory


def _write(directory: Path, identity: str, content: bytes) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    atomic.replace(directory / (FILE + identity), content)


# ---- what a run has to show


def of_run(
    record: dict[str, Any], steps: dict[str, np.ndarray], figures: dict[str, bytes]
) -> bytes:
    """A run's event file.

    Args:
        figures: PNG bytes by file name.
    """
    points = [*_epochs(record), *_steps(record, steps)]
    return encode(points, run_settings(record), figures)


def of_sweep_run(plan: dict[str, Any], row: dict[str, Any], epochs: list[dict[str, Any]]) -> bytes:
    """The event file of one of a sweep's runs, all at the time when the sweep started.

    Args:
        plan: sweep.json.
        row: of runs.parquet.
        epochs: its rows of curves.parquet.
    """
    time = datetime.fromisoformat(plan["timings"]["started"]).timestamp()
    layers = [f"layer{number}" for number in range(1, len(epochs[0]["dead"]) + 1)]
    points = [Point(time, epoch["epoch"], _epoch(epoch, layers)) for epoch in epochs]
    return encode(points, sweep_settings(plan, row), {})


def _epochs(record: dict[str, Any]) -> Iterator[Point]:
    hidden = [layer["name"] for layer in record["layers"][:-1]]
    for row, time in zip(record["epochs"], _ends(record)[1:], strict=True):
        yield Point(time, row["epoch"], _epoch(row, hidden))


def _epoch(row: dict[str, Any], hidden: list[str]) -> Scalars:
    """An epoch's scalars by tag."""
    scalars = {f"epoch/{name}": float(row[name]) for name in METRICS}
    for name in ("dead", "silent"):
        scalars |= _by_layer(f"epoch/{name}", hidden, row[name])
    return scalars


def _steps(record: dict[str, Any], steps: dict[str, np.ndarray]) -> Iterator[Point]:
    """A point per step; the epochs' seconds are spread evenly over their steps."""
    names = [layer["name"] for layer in record["layers"]]
    ends, count = _ends(record), len(steps["loss"])
    times = np.interp(np.linspace(0, len(ends) - 1, count + 1)[1:], range(len(ends)), ends)
    for i, time in enumerate(times):
        scalars = {"step/loss": float(steps["loss"][i])}
        scalars |= _by_layer("step/grad_norm", names, steps["grad_norm"][i])
        scalars |= _by_layer("step/dead", names[:-1], steps["dead"][i])
        yield Point(float(time), i + 1, scalars)


def _by_layer(tag: str, layers: list[str], values: Iterable[Any]) -> Scalars:
    return {f"{tag}/{name}": float(value) for name, value in zip(layers, values, strict=True)}


def _ends(record: dict[str, Any]) -> np.ndarray:
    """When the training began, and when each epoch ended."""
    times = record["timings"]
    started = datetime.fromisoformat(times["started"]).timestamp()
    began = started + times["setup_seconds"] + times["compile_seconds"]
    return began + np.cumsum([0.0, *times["epoch_seconds"]])


# ---- its settings, and how it ended


def run_settings(record: dict[str, Any]) -> Settings:
    """What the hparams plugin compares runs by: settings, R and κ, how it ended."""
    settings = _shared(record) | {"framework": record["framework"], "case": record["case"]}
    for layer in record["layers"]:
        settings |= {f"{layer['name']}/{key}": layer[key] for key in layer if key not in SHAPE}
    if form := record["canonical"]:
        settings["R"] = form["learning_rate"]
        settings |= {f"κ{i}": scale for i, scale in enumerate(form["init_scale"], 1)}
    return _plain({**settings, "outcome": record["outcome"]})


def sweep_settings(plan: dict[str, Any], row: dict[str, Any]) -> Settings:
    """The same of a sweep's run, by the same names.

    Args:
        plan: sweep.json.
        row: of runs.parquet.
    """
    settings = _shared(plan) | {"framework": "jax"}
    settings |= {name: row[name] for name in ("seed", "input_scale", "outcome", "course")}
    settings["R"] = row["canonical_learning_rate"]
    for column, value in row.items():
        if match := KAPPA.fullmatch(column):
            settings[f"κ{match[1]}"] = value
        elif match := PER_LAYER.fullmatch(column):
            settings[f"layer{match[2]}/{match[1]}"] = value
    return _plain(settings)


def _shared(described: dict[str, Any]) -> dict[str, Any]:
    """What records and sweeps say alike: what was asked, of which data."""
    experiment = described["experiment"]
    hidden = " ".join(map(str, experiment["hidden"]))
    return {**experiment, "hidden": hidden, "data": described["data"]["name"]}


def _plain(named: dict[str, Any]) -> Settings:
    """What is a number or a word; a list per layer stands under its layers' names already."""
    return {name: value for name, value in named.items() if isinstance(value, str | int | float)}


# ---- event files


def encode(points: Iterable[Point], settings: Settings, figures: dict[str, bytes]) -> bytes:
    """An event file: the settings first, with the metrics they are shown beside."""
    from tensorboardX.summary import hparams

    event, _ = _messages()
    points = list(points)
    time, last = points[0].time, points[-1].time
    events = [event(wall_time=time, file_version=VERSION)]
    metrics = dict.fromkeys(f"epoch/{name}" for name in METRICS)
    events += [event(wall_time=time, summary=each) for each in hparams(dict(settings), metrics)]
    for point in points:
        drawn = _scalars(point.scalars)
        events.append(event(wall_time=point.time, step=point.step, summary=drawn))
    if figures:
        events.append(event(wall_time=last, summary=_images(figures)))
    return b"".join(_framed(each.SerializeToString()) for each in events)


def _messages() -> tuple[Any, Any]:
    """TensorBoard's Event and Summary, whose classes exist only once their modules have run."""
    proto = "tensorboardX.proto"
    event, summary = (import_module(f"{proto}.{name}_pb2") for name in ("event", "summary"))
    return event.Event, summary.Summary


def _scalars(scalars: Scalars) -> Any:
    _, summary = _messages()
    with np.errstate(over="ignore"):  # a loss beyond float32 is drawn as infinite
        values = {tag: float(np.float32(value)) for tag, value in scalars.items()}
    return summary(value=[summary.Value(tag=tag, simple_value=v) for tag, v in values.items()])


def _images(figures: dict[str, bytes]) -> Any:
    """PNG files as they are; their sizes stand in their bytes 16 to 23."""
    _, summary = _messages()
    values = []
    for name, content in figures.items():
        width, height = struct.unpack(">II", content[16:24])
        image = summary.Image(
            width=width, height=height, colorspace=RGBA, encoded_image_string=content
        )
        values.append(summary.Value(tag=f"figures/{name.removesuffix('.png')}", image=image))
    return summary(value=values)


def _framed(event: bytes) -> bytes:
    """An event as it lies in the file: its length, and a check sum behind each of the two."""
    from tensorboardX.record_writer import masked_crc32c

    length = struct.pack("<Q", len(event))
    sums = (struct.pack("<I", masked_crc32c(part)) for part in (length, event))
    return b"".join((length, next(sums), event, next(sums)))

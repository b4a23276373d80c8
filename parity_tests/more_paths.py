"""What random experiments go through beside two runs: files, commands, sweeps, certificates."""

import contextlib
import dataclasses
import importlib.util
import io
import random
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from jaxmlp.commands import run as run_jax
from jaxmlp.commands import run_torch, torch_side
from jaxmlp.data.dataset import Dataset, first_images
from jaxmlp.data.loading import load_data
from jaxmlp.device import compilation
from jaxmlp.experiment import Experiment
from jaxmlp.forecasting.rehearsal import forecast
from jaxmlp.law import emission
from jaxmlp.law.transport import transport
from jaxmlp.record import saved_record
from jaxmlp.sweeps.forecasts import Computed, compute_sharpness, forecasts
from jaxmlp.sweeps.sweep import Finished, Sweep
from jaxmlp.training import certificate
from jaxmlp.training.run import Run
from parity_tests.comparison import Comparison, bitwise, compare
from parity_tests.drawing import Drawn, decade

LEVEL = "random"
KEYS = ("train_images", "train_labels", "test_images", "test_labels")
KERAS_KEYS = ("x_train", "y_train", "x_test", "y_test")
# Lanczos stops at a residual of 1e-2; the eigenvalue's error is of its square's order.
EIGENVALUE = 1e-3
ALONE = 3  # runs of a sweep that are trained alone, too
FORMATS = Path(__file__).parents[1] / "tests"


def _format(name: str) -> Any:
    """A module of tests/ that writes data sets; that directory is no package."""
    spec = importlib.util.spec_from_file_location(name, FORMATS / f"{name}.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# ---- data


@contextlib.contextmanager
def loaded(drawn: Drawn) -> Iterator[Dataset]:
    """The experiment's data set, by the way that it asks for."""
    made = drawn.dataset()
    if drawn.also in ("file", "tfds"):
        with tempfile.TemporaryDirectory() as name:
            write = write_npz if drawn.also == "file" else write_tfds
            found = load_data(
                str(write(Path(name), drawn, made)),
                cache_dir=Path(name) / "cache",
                warn=lambda text: None,
            )
            for key in KEYS:
                if not np.array_equal(getattr(found, key), getattr(made, key)):
                    raise AssertionError(f"{key} of the {drawn.also} are not those written")
            made = dataclasses.replace(
                found, **{key: np.array(getattr(found, key)) for key in KEYS}
            )
    size = drawn.experiment.train_size
    yield first_images(made, size) if size else made


def write_npz(folder: Path, drawn: Drawn, made: Dataset) -> Path:
    """Under either set of names; gray images with a last axis of 1, or without it."""
    chance = random.Random(f"{drawn.family}/{drawn.index}/npz")
    names = chance.choice([KEYS, KERAS_KEYS])
    arrays = {}
    for name, key in zip(names, KEYS, strict=True):
        array = getattr(made, key)
        if array.ndim == 4:
            array = np.moveaxis(array, 1, 3)
            if array.shape[3] == 1 and chance.random() < 0.5:
                array = array[..., 0]
        arrays[name] = array
    path = folder / "made.npz"
    np.savez(path, **arrays)
    return path


def write_tfds(folder: Path, drawn: Drawn, made: Dataset) -> Path:
    """In two shards; that writer's test set has three images."""
    half = drawn.train // 2
    shards = (tuple(range(half)), tuple(range(half, drawn.train)))
    content = {key: np.array(getattr(made, key)) for key in KEYS}
    _format("tfds_format").write_tfds(folder, content, shards)
    return folder


class Patches(contextlib.ExitStack):
    """pytest's monkeypatch, as far as the writers need it."""

    def setattr(self, target: Any, name: str, value: Any) -> None:
        self.enter_context(mock.patch.object(target, name, value))


# ---- beside the two runs


def compared(drawn: Drawn, dataset: Dataset) -> Iterator[Comparison]:
    """What the experiment asks for beside its two runs."""
    beside = {
        "commands": by_commands,
        "torchvision": by_torchvision,
        "sweep": by_sweep,
        "overflowing sweep": by_sweep,
        "certificate": by_certificate,
    }
    if drawn.also in beside:
        yield from beside[drawn.also](drawn, dataset)


def same(drawn: Drawn, what: str, mine: Any, other: Any) -> Comparison:
    """Both in every bit; of whatever NumPy makes arrays."""
    arrays = [np.asarray(side) for side in (mine, other)]
    return bitwise((LEVEL, drawn.name, what), *arrays)


def told(drawn: Drawn, what: str, holds: bool) -> Comparison:
    return same(drawn, what, np.array(holds), np.array(True))


def by_commands(drawn: Drawn, dataset: Dataset) -> Iterator[Comparison]:
    """Both commands from their flags on: their records are the same."""
    with tempfile.TemporaryDirectory() as name:
        path = write_npz(Path(name), drawn, drawn.dataset())
        words = [*emission.as_flags(drawn.experiment), "--data", str(path), "--out"]
        with (
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
            mock.patch.object(compilation, "use_compilation_cache"),
        ):
            run_jax.main([*words, f"{name}/jax", "--no-forecast"])
            run_torch.main([*words, f"{name}/torch"])
        sides = [saved_record.load(Path(name) / side) for side in ("jax", "torch")]
    for part in ("experiment", "layers", "data", "canonical", "explanation", "finished"):
        mine, other = (str(result[part]) for result, _, _ in sides)
        yield same(drawn, f"record: {part}", mine, other)
    yield told(
        drawn,
        "record: experiment is what was asked",
        sides[0][0]["experiment"] == drawn.experiment.to_json(),
    )
    kinds = [result["outcome"] for result, _, _ in sides]
    yield same(drawn, "record: outcome", *kinds)
    for which in (1, 2):
        mine, other = (side[which] for side in sides)
        yield same(drawn, "record: names of arrays", sorted(mine), sorted(other))
        for key in mine.keys() & other.keys():
            bound = 1e-9 * np.max(np.abs(other[key]), initial=0.0)
            yield compare(
                (LEVEL, drawn.name, f"record: {key}"), mine[key], other[key], bound, "relative 1e-9"
            )


def by_torchvision(drawn: Drawn, dataset: Dataset) -> Iterator[Comparison]:
    """torch's run through torchvision's pipeline is its run from arrays, in float32 bit for bit."""
    made, experiment = drawn.dataset(), dataclasses.replace(drawn.experiment, precision="float32")
    with tempfile.TemporaryDirectory() as name, Patches() as patches:
        content = {key: np.array(getattr(made, key)) for key in KEYS}
        _format("torchvision_format").write(Path(name), content, patches)
        found = [_results(experiment, dataset, root) for root in (Path(name), None)]
    for step, (mine, other) in enumerate(zip(*found, strict=True), 1):
        yield same(drawn, f"torchvision, result {step}", mine, other)


def _results(experiment: Experiment, dataset: Dataset, root: Path | None) -> list[np.ndarray]:
    run = torch_side.torch_run(experiment, dataset, root, device="cpu")
    results = []
    for result in run.epochs():
        results += [np.array(float(loss)) for loss in result.steps["loss"]]
        results += [np.array([result.test.loss, result.test.correct])]
        results += [value for layer in result.params for value in layer.values()]
    return results


def _settings(drawn: Drawn) -> list[Experiment]:
    """Three that differ in what a sweep may vary."""
    chance = random.Random(f"{drawn.family}/{drawn.index}/sweep")
    original = drawn.experiment
    layers = range(original.layers)
    other = dataclasses.replace(
        original,
        input_scale=decade(chance, -0.5, 0.5),
        bias_init_scale=tuple(decade(chance, -0.5, 0.5) for _ in layers),
    )
    if drawn.also == "overflowing sweep":  # rate times decay is no float32
        rates = {"bias_learning_rate": (1e30,), "bias_weight_decay": (1e12,)}
        settings = [original, dataclasses.replace(original, **rates), other]
        return [dataclasses.replace(each, precision="float32") for each in settings]
    rates = {
        name: tuple(3 * rate for rate in original.per_layer(name))
        for name in ("learning_rate", "bias_learning_rate")
    }
    return [original, dataclasses.replace(original, **rates), other]


def by_sweep(drawn: Drawn, dataset: Dataset) -> Iterator[Comparison]:
    """Settings by seeds as one program: each run is what it is alone, and so is its forecast."""
    chance = random.Random(f"{drawn.family}/{drawn.index}/seeds")
    settings, original = _settings(drawn), drawn.experiment
    seeds = [original.seed, chance.randrange(2**31, 2**32), chance.randrange(2**33, 2**64)]
    sweep = Sweep(settings, seeds, dataset)
    finished: list[Finished] = []
    sharpness: Computed = {}
    for chunk in sweep.chunks():
        trained = sweep.train(chunk)
        compute_sharpness(sweep, chunk, trained, sharpness)
        finished += trained
    foretold_of = list(forecasts(sweep, finished, sharpness))
    pairs = [(run.setting, run.seed) for run in finished]
    yield same(drawn, "sweep's runs", sorted(pairs), [(i, j) for i in range(3) for j in range(3)])
    chosen = [(0, 2), (1, 1), (2, 2)][:ALONE]
    for run, foretold in zip(finished, foretold_of, strict=True):
        if (run.setting, run.seed) in chosen:
            asked = dataclasses.replace(settings[run.setting], seed=seeds[run.seed])
            yield from _alone(drawn, asked, dataset, run, foretold)


def _alone(
    drawn: Drawn, experiment: Experiment, dataset: Dataset, run: Any, foretold: Any
) -> Iterator[Comparison]:
    what = f"run {run.setting}, {run.seed} of the sweep"
    single, finite = Run(experiment, dataset), False
    for epoch, (mine, result) in enumerate(zip(run.epochs, single.epochs(), strict=True), 1):
        for part in ("steps", "test"):
            for name, value in getattr(result, part)._asdict().items():
                yield same(
                    drawn,
                    f"{what}: epoch {epoch} {name}",
                    getattr(getattr(mine, part), name),
                    value,
                )
        params = [np.asarray(value) for layer in result.params for value in layer.values()]
        finite = all(np.isfinite(value).all() for value in params)
    yield same(drawn, f"{what}: finite", run.finite, finite)
    expected = forecast(experiment, dataset)
    for name, mine, other in (
        ("sharpness", foretold.sharpness.value, expected.sharpness.value),
        ("limit", foretold.sharpness.limit, expected.sharpness.limit),
    ):
        yield compare(
            (LEVEL, drawn.name, f"{what}: {name}"),
            np.array(mine),
            np.array(other),
            EIGENVALUE * abs(other),
            "relative 1e-3",
        )
    yield same(drawn, f"{what}: rehearsal", foretold.loss, expected.loss)


def by_certificate(drawn: Drawn, dataset: Dataset) -> Iterator[Comparison]:
    """A run against its transport by powers of two is identical; with a bias's rate off it is not.

    That one is a single step, after which nothing but the bias has seen the rate.
    """
    chance = random.Random(f"{drawn.family}/{drawn.index}/certificate")
    original = drawn.experiment
    factors = [2.0 ** chance.randint(-3, 3) for _ in range(original.layers)]
    moved = transport(original, factors=factors)
    yield told(drawn, "certificate of a transported run", _certificate(original, moved, dataset))
    one_step = {
        "batch_size": len(dataset.train_labels),
        "epochs": 1,
        "train_size": None,
        "schedule": ("constant",),
        "milestones": (),
    }
    original, moved = (dataclasses.replace(each, **one_step) for each in (original, moved))
    yield told(drawn, "certificate of one step", _certificate(original, moved, dataset))
    for name in ("bias_learning_rate", "learning_rate"):
        *others, last = moved.per_layer(name)
        off = dataclasses.replace(moved, **{name: (*others, 1.5 * last)})
        yield told(
            drawn,
            f"certificate with another {name} of the last layer",
            not _certificate(original, off, dataset),
        )


def _certificate(original: Experiment, moved: Experiment, dataset: Dataset) -> bool:
    return certificate.certify(original, moved, dataset).identical

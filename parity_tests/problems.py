"""What the levels compute: experiments on small and on real images."""

import dataclasses
import functools
import itertools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxmlp import data, question
from jaxmlp.data import Dataset
from jaxmlp.experiment import Experiment

REAL = Path(
    os.environ.get("JAXMLP_TEST_TFDS", Path(__file__).parents[2] / "shared" / "tfds")
)  # prepared by TFDS; where it is absent, made images of the same shape take its place
DEPTHS = ((), (5,), (5, 6), (5, 6, 8))  # hidden widths; 60 inputs and 7 classes beside them


class Problem(NamedTuple):
    name: str
    experiment: Experiment
    dataset: Dataset
    samples: int = 1  # initial weights and batches to try


def made(
    train: int, test: int, shape: tuple[int, int, int], classes: int, seed: int = 0
) -> Dataset:
    """Smooth images: a pattern of the class, another of the image, noise, and their brightness.

    Non-negative like photographs, with most of the second moment along the mean. The first image is
    black: without biases every ReLU stands at exactly 0.
    """
    draw = np.random.default_rng(seed)
    channels, height, width = shape
    grid = np.meshgrid(np.arange(height) / height, np.arange(width) / width, indexing="ij")
    modes = itertools.product(range(3), repeat=2)
    waves = np.stack([np.cos(np.pi * (i * grid[0] + j * grid[1])) for i, j in modes])
    patterns = np.einsum("kcw,whv->kchv", draw.normal(0, 12, (classes, channels, 9)), waves)
    split = {}
    for name, count in (("train", train), ("test", test)):
        labels = draw.integers(0, classes, count).astype(np.int32)
        labels[:classes] = np.arange(min(classes, count))
        own = np.einsum("ncw,whv->nchv", draw.normal(0, 16, (count, channels, 9)), waves)
        images = 118 + patterns[labels] + own + draw.normal(0, 12, own.shape)
        images[0] = 0
        split[f"{name}_images"] = np.clip(images, 0, 255).astype(np.uint8)
        split[f"{name}_labels"] = labels
    return Dataset("made", "made images", **split, sha256="", classes=classes)


@functools.cache
def tiny() -> Dataset:
    return made(24, 10, (3, 5, 4), 7)


@functools.cache
def small() -> Dataset:
    """For whole trajectories: 20 steps of 50 images an epoch."""
    return made(1000, 200, (3, 8, 8), 10)


@functools.cache
def real_shape() -> tuple[str, Dataset]:
    """CIFAR-10's first images where they are at hand, else made ones of their shape."""
    if REAL.is_dir():
        dataset = data.load(str(REAL), warn=lambda text: None)
        few = {
            name: getattr(dataset, name)[:500]
            for name in ("train_images", "train_labels", "test_images", "test_labels")
        }
        return "CIFAR-10", dataclasses.replace(dataset, **few)
    return "made images", made(500, 50, (3, 32, 32), 10)


def networks(quick: bool) -> Iterator[Problem]:
    """The question's cases at their real shape; depths 1 to 4, bias, both float widths.

    Small networks get many samples, so that a side's mean error is steady.
    """
    for precision, bias, hidden in itertools.product(("float32", "float64"), (False, True), DEPTHS):
        depth = len(hidden) + 1
        if quick and (depth != 3 or precision == "float64"):
            continue
        samples = 40 if precision == "float32" else 5
        for scale in (1.0, 255.0):
            experiment = Experiment(
                hidden=hidden, bias=bias, input_scale=scale, batch_size=12, seed=3,
                init_scale=tuple(1 + 0.5 * i for i in range(depth)), precision=precision,
            )  # fmt: skip
            biased = "bias" if bias else "no bias"
            name = f"60-{'-'.join(map(str, hidden))}-7".replace("--", "-")
            yield Problem(
                f"{name}, {biased}, × {scale:g}, {precision}", experiment, tiny(), samples
            )
    if quick:
        return
    source, dataset = real_shape()
    for case in question.CASES:
        experiment = Experiment(**question.settings(case), seed=1)
        yield Problem(f"{case}, 3072-300-10, {source}", experiment, dataset, 4)
    experiment = Experiment(**question.settings("baseline"), precision="float64", bias=True)
    yield Problem(f"baseline with bias, float64, {source}", experiment, dataset)


def cases(precision: str, steps: int) -> Iterator[Problem]:
    """The question's cases on the small images, for whole trajectories."""
    for case in question.CASES:
        experiment = Experiment(
            **question.settings(case), hidden=(50,), batch_size=50, epochs=steps // 20,
            precision=precision,
        )  # fmt: skip
        yield Problem(case, experiment, small())


def closed_loops(steps: int) -> Iterator[Problem]:
    """Every optimizer at once with biases, two hidden layers, other rates, a schedule per layer."""
    for optimizer, settings in {
        "sgd": {"nesterov": True, "learning_rate": (0.02, 0.01, 0.005)},
        "adam": {"learning_rate": (1e-3, 3e-3, 2e-3), "eps": (1e-8, 1e-6, 1e-7)},
        "adamw": {"learning_rate": (1e-3, 3e-3, 2e-3), "weight_decay": (0.1, 0.0, 0.01)},
        "rmsprop": {"learning_rate": (1e-4, 3e-4, 2e-4), "momentum": 0.8},
        "adagrad": {"learning_rate": (1e-2, 3e-2, 2e-2)},
        "lion": {"learning_rate": (1e-4, 3e-4, 2e-4), "weight_decay": (0.1, 0.0, 0.01)},
    }.items():
        experiment = Experiment(
            optimizer=optimizer, hidden=(20, 15), bias=True, batch_size=50, epochs=steps // 20,
            preprocessing="standardize", input_scale=3.0, init_scale=(0.5, 2.0, 1.0), seed=6,
            schedule=("cosine", "exponential", "step"), gamma=(0.1, 0.9, 0.5), milestones=(2, 5),
            warmup_epochs=(1.0, 0.0, 0.5), precision="float64", **settings,
        )  # fmt: skip
        yield Problem(optimizer, experiment, small())

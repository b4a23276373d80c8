"""What the levels compute: experiments on small and on real images."""

import dataclasses
import functools
import itertools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxmlp import question
from jaxmlp.data.dataset import Dataset
from jaxmlp.data.loading import load_data
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
        dataset = load_data(str(REAL), warn=lambda text: None)
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
        if quick and (depth != 3 or (precision == "float64" and not bias)):
            continue
        samples = 30 if precision == "float32" else 5
        for scale in (1.0, 255.0):
            experiment = Experiment(
                hidden=hidden,
                bias=bias,
                input_scale=scale,
                batch_size=12,
                seed=3,
                init_scale=tuple(1 + 0.5 * i for i in range(depth)),
                precision=precision,
            )
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
        yield Problem(f"{case}, 3072-300-10, {source}", experiment, dataset, 2)
    experiment = Experiment(**question.settings("baseline"), precision="float64", bias=True)
    yield Problem(f"baseline with bias, float64, {source}", experiment, dataset)


def cases(precision: str, steps: int) -> Iterator[Problem]:
    """The question's cases on the small images, for whole trajectories."""
    for case in question.CASES:
        experiment = Experiment(
            **question.settings(case),
            hidden=(50,),
            batch_size=50,
            epochs=steps // 20,
            precision=precision,
        )
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
            optimizer=optimizer,
            hidden=(20, 15),
            bias=True,
            batch_size=50,
            epochs=steps // 20,
            preprocessing="standardize",
            input_scale=3.0,
            init_scale=(0.5, 2.0, 1.0),
            seed=6,
            bias_init_scale=(1.5, 0.3, 0.7),
            schedule=("cosine", "exponential", "step"),
            gamma=(0.1, 0.9, 0.5),
            milestones=(2, 5),
            warmup_epochs=(1.0, 0.0, 0.5),
            precision="float64",
            **settings,
        )
        yield Problem(optimizer, experiment, small())


@functools.cache
def wide() -> Dataset:
    """Several test batches on either side, the last one not full."""
    return made(2040, 1130, (3, 5, 4), 7)


def commands() -> Iterator[Problem]:
    """What only a command's own run puts together: settings far from the question's."""
    asked: dict[str, dict] = {
        "sgd, three layers, standardized": {
            "hidden": (11, 6),
            "bias": True,
            "preprocessing": "standardize",
            "schedule": ("cosine", "exponential", "step"),
            "milestones": (1,),
            "warmup_epochs": (0.22, 1 / 17, 0.0),
            "gamma": (0.1, 0.7, 0.3),
            "weight_decay": (0.0, 1e-3, 1e-2),
            "learning_rate": (0.05, 0.02, 0.01),
            "init_scale": (1, 0.5, 2),
            "bias_init_scale": (0.25, 3, 1),
            "seed": 2**32 - 1,
            "bias_learning_rate": (0.01, 0.04, 0.02),
            "bias_weight_decay": (0.05, 0.0, 1e-4),
        },
        "adamw, centred, a rate of 0": {
            "hidden": (9,),
            "preprocessing": "center",
            "optimizer": "adamw",
            "learning_rate": (0.0, 1e-2),
            "weight_decay": (0.1,),
            "schedule": ("cosine",),
            "warmup_epochs": (0.0, 4.0),
            "seed": 3,
        },
        "sgd, six layers": {
            "hidden": (8, 7, 6, 7, 8),
            "bias": True,
            "learning_rate": (0.03,),
            "seed": 5,
            "schedule": ("exponential",) * 3 + ("constant",) * 3,
            "gamma": (0.9, 0.8, 0.7, 0.6, 0.5, 0.4),
            "warmup_epochs": (0.0, 0.5, 1.0, 1.0, 0.5, 0.1),
        },
        "inputs × 1e-7": {"hidden": (9,), "input_scale": 1e-7, "seed": 2**40 + 7},
        "inputs × 1e8, gradients past 1e6": {
            "hidden": (9,),
            "input_scale": 1e8,
            "learning_rate": (1e-18, 1e-16),
        },
    }
    for name, settings in asked.items():
        experiment = Experiment(batch_size=120, epochs=3, precision="float64", **settings)
        yield Problem(name, experiment, wide())

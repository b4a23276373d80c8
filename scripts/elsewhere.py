"""How the forecast, which was fitted to MLPs, does on random runs of a CNN and of a ResNet.

For each run: S at its start, what was foretold, and what 600 steps of SGD then did. Prints a
Markdown table of balanced accuracies. The seed of the settings is used for nothing else.
"""

import argparse
import multiprocessing
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from jaxmlp.commands import exit_status, flags, output, run_job
from jaxmlp.commands.progress import Steps
from jaxmlp.data.dataset import Dataset
from jaxmlp.forecasting.models import ALMOST_ALL, CURVATURE_ALONE, REHEARSAL, features
from jaxmlp.networks.forecast import judge, sharpness
from jaxmlp.networks.protocol import INPUT, Step, Training
from torchref.network import TorchNetwork

SEED = 20261125
BATCHES, BATCH_SIZE, STEPS = 100, 100, 600  # six passes, as the models were fitted to six epochs
POOLED = 2  # pixels on a side that are averaged into one, so that two cores do with 15 minutes
Batches = list[tuple[Tensor, Tensor]]


# ---- the networks


def cnn(classes: int) -> nn.Module:
    return nn.Sequential(
        *(nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, classes)),
    )


def convolution(inputs: int, outputs: int, size: int = 3, stride: int = 1) -> nn.Module:
    """A convolution that BatchNorm follows."""
    conv = nn.Conv2d(inputs, outputs, size, stride, size // 2, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs))


class Block(nn.Module):
    """Two convolutions beside a shortcut, which has one of its own where the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first = convolution(inputs, outputs, stride=stride)
        self.second = convolution(outputs, outputs)
        same = inputs == outputs and stride == 1
        self.short = nn.Identity() if same else convolution(inputs, outputs, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.short(x) + self.second(torch.relu(self.first(x))))


def resnet(classes: int) -> nn.Module:
    return nn.Sequential(
        *(convolution(3, 16, stride=2), nn.ReLU()),
        *(Block(16, 16, 1), Block(16, 32, 2), Block(32, 32, 1)),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, classes)),
    )


NETWORKS = {"CNN": cnn, "ResNet": resnet}


# ---- the runs


class Setting(NamedTuple):
    """Of one run."""

    learning_rate: float
    input_scale: float
    init_factor: float  # of all weights of convolutions and linear layers


Task = tuple[str, int, Setting]  # network, index, setting
HERE: dict[str, Any] = {}  # a process' batches and classes


class Measured(NamedTuple):
    """What was foretold of a run, as probabilities of `diverges`, and what became of it."""

    ratio: float  # S over its limit
    by_curvature: float
    by_rehearsal: float
    diverges: bool
    already: bool  # it did so within the rehearsal

    def __str__(self) -> str:
        course = "diverges" if self.diverges else "stable"
        foretold = f"{self.by_curvature:.2f} by S alone, {self.by_rehearsal:.2f} with the rehearsal"
        return f"{course}; S / limit {self.ratio:.2g}, foretold {foretold}"


def settings(runs: int) -> list[Setting]:
    """Rates and scales over three decades, inits over two."""
    draw = np.random.default_rng(SEED)
    exponents = draw.uniform((-1.5, -1.5, -1), (1.5, 1.5, 1), (runs, 3))
    return [Setting(0.02 * 10**rate, 10**scale, 10**init) for rate, scale, init in exponents]


def first_batches(dataset: Dataset) -> Batches:
    """Of pixels between 0 and 1, averaged in squares.

    Raises:
        ValueError: the data set has fewer images.
    """
    needed = BATCHES * BATCH_SIZE
    if len(dataset.train_images) < needed:
        raise ValueError(f"{len(dataset.train_images)} training images are too few; give {needed}")
    images = torch.tensor(dataset.train_images[:needed], dtype=torch.float32) / 255
    labels = torch.tensor(dataset.train_labels[:needed], dtype=torch.long)
    images = nn.functional.avg_pool2d(images, POOLED)
    return list(zip(images.split(BATCH_SIZE), labels.split(BATCH_SIZE), strict=True))


def measure(
    name: str, index: int, setting: Setting, batches: Batches, classes: int, steps: int = STEPS
) -> Measured:
    """One run of a network, whose initial values are drawn from its index."""
    torch.manual_seed(index)
    model = NETWORKS[name](classes)
    optimizer = torch.optim.SGD(model.parameters(), setting.learning_rate, momentum=0.9)
    network = TorchNetwork(model, optimizer, batches)
    factors = {INPUT: setting.input_scale}
    factors |= {n: setting.init_factor for n, p in model.named_parameters() if p.ndim > 1}
    found = sharpness(network, factors, network.settings)
    assert found is not None  # SGD's preconditioner is known
    course = trained(network.start(factors, network.settings), steps)
    rehearsed = course[:REHEARSAL]
    by_rehearsal = judge(found, rehearsed, classes).diverges
    by_curvature = CURVATURE_ALONE.probability(curvature_feature(found.ratio))
    return Measured(found.ratio, by_curvature, by_rehearsal, diverges(course), diverges(rehearsed))


def curvature_feature(ratio: float) -> dict[str, float]:
    """The one feature that needs no rehearsal, in the range that was seen."""
    return features(ratio, np.ones(1), np.zeros((1, 0)), np.ones(1), 1)


def trained(training: Training, steps: int) -> list[Step]:
    """The steps of a run, up to where it is settled that it diverges and the rehearsal is over."""
    course: list[Step] = []
    while len(course) < steps:
        course.append(training.step())
        if not np.isfinite(course[-1].loss):
            break
        if len(course) >= REHEARSAL and passes(course):
            break
    return course


def passes(course: Sequence[Step]) -> bool:
    """Whether the loss becomes nonfinite or passes 1.5 times its first value + 0.5."""
    loss = np.array([float(step.loss) for step in course])
    return not bool((loss <= 1.5 * loss[0] + 0.5).all())  # NaN is not below


def diverges(course: Sequence[Step]) -> bool:
    """As forecasting/rehearsal.py defines it; of a ReLU's units, at the last step, in its batch."""
    return passes(course) or max(course[-1].dead.values(), default=0.0) >= ALMOST_ALL


# ---- the table


def row(name: str, measured: Sequence[Measured]) -> str:
    truth = np.array([run.diverges for run in measured])
    foretold = np.array([[run.by_curvature, run.by_rehearsal] for run in measured]).T >= 0.5
    already = sum(run.already for run in measured)
    counts = f"{truth.sum()} of {len(truth)} | {already}"
    return f"| {name} | {counts} | " + " | ".join(score(said, truth) for said in foretold) + " |"


def score(said: np.ndarray, truth: np.ndarray) -> str:
    """Balanced accuracy, the mean of the two recalls, and what was wrong.

    A dash where all runs took the same course: then one of the recalls is of nothing.
    """
    missed, alarms = int((truth & ~said).sum()), int((said & ~truth).sum())
    balanced = "–"
    if truth.any() and not truth.all():
        balanced = f"{np.mean([said[truth].mean(), (~said)[~truth].mean()]):.1%}"
    return f"{balanced} ({missed} missed, {alarms} false alarms)"


def main(arguments: list[str] | None = None) -> None:
    parser = flags.Parser(__doc__ or "")
    flags.add_data_flags(parser)
    parser.add_argument("--runs", type=int, default=100, help="of each network (default: 100)")
    values = parser.parse_args(arguments)
    with exit_status.one_line_errors("nothing more is measured", for_good=arguments is None):
        run(values)


def run(values: argparse.Namespace) -> None:
    tasks = [(name, i, each) for name in NETWORKS for i, each in enumerate(settings(values.runs))]
    steps, measured = Steps(len(tasks)), {name: [] for name in NETWORKS}
    for (name, index, _), result in zip(tasks, in_processes(values, tasks), strict=True):
        measured[name].append(result)
        steps.done(f"{name}, run {index}: {result}")
    print("| network | runs that diverge | within the rehearsal | S alone | with the rehearsal |")
    print("|---|---|---|---|---|")
    for name, results in measured.items():
        print(row(name, results))


def in_processes(values: argparse.Namespace, tasks: list[Task]) -> Iterator[Measured]:
    """What is measured, in order: a process per core, each of one thread.

    Threads that wait for each other cost more than they save at these sizes.
    """
    dataset = run_job.load(values, output.to_stderr)  # so that whatever is wrong is said once
    first_batches(dataset)
    spawn = multiprocessing.get_context("spawn")  # JAX's threads forbid to fork
    with ProcessPoolExecutor(None, spawn, prepare, (values,)) as pool:
        yield from pool.map(measure_here, tasks)


def prepare(values: argparse.Namespace) -> None:
    """Reads a process' data."""
    torch.set_num_threads(1)
    dataset = run_job.load(values, lambda text: None)
    HERE.update(batches=first_batches(dataset), classes=dataset.classes)


def measure_here(task: Task) -> Measured:
    return measure(*task, **HERE)


if __name__ == "__main__":
    sys.exit(main())

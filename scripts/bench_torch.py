"""PyTorch's contenders of bench.py, in a process of their own: no JAX, no threads of JAX's.

Reads the name of a contender from each line of standard input, trains an epoch its way, and answers
with milliseconds per step (or "-" if it cannot run here). An epoch ends with the test set, as in
jaxmlp's run; that one's metrics of each step (accuracy, gradient norms, dead units) these have not.
"""

import argparse
import logging
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch

from jaxmlp.data.loading import load_data
from jaxmlp.experiment import Experiment
from torchref.data import import_torchvision, transform
from torchref.model import MLP
from torchref.train import loss_function

WORKERS = 4
Contender = Callable[[], float]
Batches = Callable[[], Iterator[tuple[torch.Tensor, torch.Tensor]]]


def sgd(model: MLP, **options) -> torch.optim.SGD:
    asked = Experiment()
    assert asked.momentum is not None
    return torch.optim.SGD(
        model.parameters(),
        lr=asked.per_layer("learning_rate")[0],
        momentum=asked.momentum,
        weight_decay=asked.per_layer("weight_decay")[0],
        **options,
    )


def epoch(train: Batches, test: Batches, compiled: bool = False, **options) -> Contender:
    """Trains an epoch a call, evaluates, and gives the milliseconds per step."""
    torch.manual_seed(0)
    model = MLP((3072, 300, 10), bias=False)
    optimizer = sgd(model, **options)

    def step(images: torch.Tensor, labels: torch.Tensor) -> None:
        loss = loss_function(model(images)[0], labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    @torch.no_grad()
    def right(images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return (model(images)[0].argmax(dim=1) == labels).sum()

    work, judge = (torch.compile(step), torch.compile(right)) if compiled else (step, right)

    def run() -> float:
        start, steps = time.perf_counter(), 0
        for images, labels in train():
            work(images, labels)
            steps += 1
        assert sum(int(judge(images, labels)) for images, labels in test()) > 0
        return 1000 * (time.perf_counter() - start) / steps

    return run


def in_memory(images: np.ndarray, labels: np.ndarray, batch: int, shuffle: bool) -> Batches:
    """All inputs as one float tensor, made once; each batch is gathered from it."""
    inputs = torch.from_numpy(np.array(images)).flatten(1).float().div_(255)
    targets = torch.from_numpy(np.array(labels)).long()

    def batches() -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        if not shuffle:
            yield from zip(inputs.split(batch), targets.split(batch), strict=True)
            return
        for indices in torch.randperm(len(targets)).split(batch):
            yield inputs[indices], targets[indices]

    return batches


def pil_images(images: np.ndarray, labels: np.ndarray, batch: int, shuffle: bool) -> Batches:
    """The question's way: torchvision's CIFAR10 hands out PIL images, workers turn them."""
    from torch.utils.data import DataLoader

    class InMemory(import_torchvision().datasets.CIFAR10):
        """torchvision's own way from an array to a PIL image, without its files."""

        def __init__(self) -> None:
            self.data = np.ascontiguousarray(np.moveaxis(images, 1, 3))
            self.targets = labels.tolist()
            self.transform, self.target_transform = transform(None, 1.0), None

    loader = DataLoader(InMemory(), batch_size=batch, shuffle=shuffle, num_workers=WORKERS)
    return lambda: iter(loader)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="synthetic")
    parser.add_argument("--data-dir", type=Path)
    values = parser.parse_args()
    warnings.filterwarnings("ignore", "This DataLoader will create 4 worker processes")
    logging.getLogger("torch").setLevel(logging.ERROR)
    dataset, batch = load_data(values.data, values.data_dir), Experiment().batch_size
    train = (dataset.train_images, dataset.train_labels, batch, True)
    test = (dataset.test_images, dataset.test_labels, 2 * batch, False)
    memory = in_memory(*train), in_memory(*test)
    contenders = {
        "question": epoch(pil_images(*train), pil_images(*test)),
        "eager": epoch(*memory),
        "fused": epoch(*memory, fused=True),
        "compiled": epoch(*memory, compiled=True),
    }
    for line in sys.stdin:
        try:
            print(contenders[line.strip()](), flush=True)
        except Exception as error:  # no compiler, no torchvision, no workers: whatever it is
            print(f"{line.strip()}: {str(error).splitlines()[0]}", file=sys.stderr)
            print("-", flush=True)


if __name__ == "__main__":
    main()

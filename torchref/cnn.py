"""A small convolutional network in torch, and how well a run of it does."""

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import max_pool2d, relu

from torchref.network import cross_entropy
from torchref.network_tensors import multiplied
from torchref.network_training import Training

WIDTHS = (16, 32)  # channels of the two convolutions
CHUNK = 500  # images evaluated at a time


class Cnn(nn.Module):
    """Twice convolution 3×3, ReLU and max-pool; then one linear layer. Images are NCHW.

    Args:
        shape: channels, height and width of an image.
        batch_norm: between each convolution and its ReLU, in place of the convolution's bias.
    """

    def __init__(self, shape: tuple[int, ...], classes: int, batch_norm: bool, seed: int) -> None:
        super().__init__()
        channels, height, width = shape
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.conv1 = nn.Conv2d(channels, WIDTHS[0], 3, padding=1, bias=not batch_norm)
            self.conv2 = nn.Conv2d(*WIDTHS, 3, padding=1, bias=not batch_norm)
            if batch_norm:
                self.bn1, self.bn2 = (nn.BatchNorm2d(width) for width in WIDTHS)
            self.head = nn.Linear(WIDTHS[1] * (height // 4) * (width // 4), classes)
        self.batch_norm = batch_norm

    def activations(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """What the two ReLUs give."""
        first = self.conv1(images)
        first = relu(self.bn1(first) if self.batch_norm else first)
        second = self.conv2(max_pool2d(first, 2))
        return first, relu(self.bn2(second) if self.batch_norm else second)

    def forward(self, images: Tensor) -> Tensor:
        return self.scores(self.activations(images)[1])

    def scores(self, activations: Tensor) -> Tensor:
        """What the last layer makes of the second ReLU's activations."""
        return self.head(max_pool2d(activations, 2).flatten(1))


def optimizer(
    model: Cnn, learning_rate: float, momentum: float, weight_decay: float
) -> torch.optim.SGD:
    """SGD; weight decay is coupled."""
    return torch.optim.SGD(
        model.parameters(), lr=learning_rate, momentum=momentum, weight_decay=weight_decay
    )


def batches(images: np.ndarray, labels: np.ndarray, size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Pixels in [0, 1] and labels, in order; what is left over makes no batch."""
    for start in range(0, len(images) - size + 1, size):
        chosen = slice(start, start + size)
        pixels = torch.from_numpy(np.array(images[chosen])).float() / 255
        yield pixels, torch.from_numpy(np.array(labels[chosen])).long()


class Evaluation(NamedTuple):
    """What a network makes of images in evaluation mode."""

    loss: float
    accuracy: float
    silent: list[float]  # by ReLU: share of the images that activate none of its channels
    dead: list[float]  # by ReLU: share of the channels that no image activates


@torch.no_grad()
def evaluate(training: Training, images: np.ndarray, labels: np.ndarray) -> Evaluation:
    """The run's network as it is now, on images multiplied by what the run multiplies its by."""
    model, losses, correct = training.model, 0.0, 0
    active: list[list[Tensor]] = [[], []]
    assert isinstance(model, Cnn)
    model.eval()
    for inputs, targets in batches(images, labels, math.gcd(len(images), CHUNK)):
        relus = model.activations(multiplied(inputs, training.factors))
        outputs = model.scores(relus[1])
        losses += float(cross_entropy(outputs, targets)) * len(targets)
        correct += int((outputs.argmax(dim=-1) == targets).sum())
        for chunks, channels in zip(active, relus, strict=True):
            chunks.append((channels > 0).flatten(2).any(dim=2))
    model.train()
    by_relu = [torch.cat(chunks) for chunks in active]
    return Evaluation(
        losses / len(images),
        correct / len(images),
        [float(1 - channels.any(dim=1).float().mean()) for channels in by_relu],
        [float(1 - channels.any(dim=0).float().mean()) for channels in by_relu],
    )

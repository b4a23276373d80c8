"""Depthwise-separable convolutions: Howard et al., MobileNets, 2017, section 3.

ReLU6 as in Sandler et al., MobileNetV2, 2018, section 4.
"""

import numpy as np
import torch
from torch import Tensor, nn


def separable(inputs: int, width: int, stride: int) -> nn.Sequential:
    """A convolution of each channel by itself, then one across channels."""
    return nn.Sequential(
        nn.Conv2d(inputs, inputs, 3, stride, padding=1, groups=inputs, bias=False),
        nn.BatchNorm2d(inputs),
        nn.ReLU6(),
        nn.Conv2d(inputs, width, 1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU6(),
    )


class MobileNet(nn.Module):
    """A stem and three separable convolutions; images (N, 3, 16, 12) to scores (N, 5)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 5, 3, 2, padding=1, bias=False), nn.BatchNorm2d(5), nn.ReLU6()
        )
        self.features = nn.Sequential(separable(5, 8, 1), separable(8, 8, 2), separable(8, 11, 1))
        self.classifier = nn.Linear(11, 5)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):  # as after training: some units pass 6
                nn.init.uniform_(module.weight, 0.5, 4.0)
                nn.init.normal_(module.bias)

    def forward(self, x: Tensor) -> Tensor:
        x = self.features(self.stem(x))
        return self.classifier(x.mean((2, 3)))


def setup(seed: int = 0) -> tuple[nn.Module, torch.optim.Optimizer, list[tuple[Tensor, Tensor]]]:
    """The model, RMSprop, and three batches of eight images."""
    torch.manual_seed(seed)
    model = MobileNet()
    optimizer = torch.optim.RMSprop(
        model.parameters(), lr=0.003, alpha=0.9, eps=1e-3, momentum=0.9, weight_decay=4e-5
    )
    draw = np.random.default_rng(seed)
    batches = []
    for _ in range(3):
        images = draw.uniform(size=(8, 3, 16, 12)).astype(np.float32)
        labels = draw.integers(5, size=8)
        batches.append((torch.from_numpy(images), torch.from_numpy(labels)))
    return model, optimizer, batches

"""A small LeNet with rectifiers.

LeCun et al., Gradient-based learning applied to document recognition, 1998, section II.
"""

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional


class LeNet(nn.Module):
    """Two convolutions and three linear layers; images (N, 3, 14, 13) to scores (N, 5)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 6, 5, padding=2)
        self.pool1 = nn.MaxPool2d(2)
        self.conv2 = nn.Conv2d(6, 7, 3)
        self.pool2 = nn.AvgPool2d(3, stride=2, padding=1)
        self.fc1 = nn.Linear(7 * 3 * 2, 15)
        self.fc2 = nn.Linear(15, 15)
        self.fc3 = nn.Linear(15, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool1(functional.relu(self.conv1(x)))
        x = self.pool2(functional.relu(self.conv2(x)))
        x = functional.relu(self.fc1(torch.flatten(x, 1)))
        return self.fc3(functional.leaky_relu(self.fc2(x), 0.2))


def setup(seed: int = 0) -> tuple[nn.Module, torch.optim.Optimizer, list[tuple[Tensor, Tensor]]]:
    """The model, SGD, and three batches of six images."""
    torch.manual_seed(seed)
    model = LeNet()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9, weight_decay=1e-3)
    draw = np.random.default_rng(seed)
    batches = []
    for _ in range(3):
        images = draw.standard_normal((6, 3, 14, 13), dtype=np.float32)
        labels = draw.integers(5, size=6)
        batches.append((torch.from_numpy(images), torch.from_numpy(labels)))
    return model, optimizer, batches

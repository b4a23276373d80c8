"""torchvision's ResNet-18 at 32 × 32 pixels.

He et al., Deep residual learning for image recognition, 2016, table 1.
"""

import numpy as np
import torch
from torch import Tensor, nn

from torchref.data import import_torchvision


def setup(seed: int = 0) -> tuple[nn.Module, torch.optim.Optimizer, list[tuple[Tensor, Tensor]]]:
    """The model, SGD, and two batches of eight images (8, 3, 32, 32) of ten classes."""
    import_torchvision()
    from torchvision.models import resnet18

    torch.manual_seed(seed)
    model = resnet18(num_classes=10)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
    draw = np.random.default_rng(seed)
    batches = []
    for _ in range(2):
        images = draw.standard_normal((8, 3, 32, 32), dtype=np.float32)
        labels = draw.integers(10, size=8)
        batches.append((torch.from_numpy(images), torch.from_numpy(labels)))
    return model, optimizer, batches

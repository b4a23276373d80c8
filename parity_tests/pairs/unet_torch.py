"""A small U-Net: Ronneberger et al., U-Net, 2015.

GroupNorm (Wu and He, 2018) and SiLU as in Ho et al., Denoising diffusion probabilistic models,
2020, appendix B.
"""

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional


class ConvBlock(nn.Module):
    """Convolution, GroupNorm, SiLU; (N, inputs, H, W) to (N, width, H, W)."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, width, 3, padding=1)
        self.norm = nn.GroupNorm(2, width)
        self.act = nn.SiLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.norm(self.conv(x)))


class UNet(nn.Module):
    """Two levels down and up; images (N, 3, 12, 16) to scores of pixels (N, 4, 12, 16)."""

    def __init__(self) -> None:
        super().__init__()
        self.down1 = ConvBlock(3, 6)
        self.down2 = ConvBlock(6, 10)
        self.middle = ConvBlock(10, 10)
        self.pool = nn.MaxPool2d(2)
        self.up2 = nn.ConvTranspose2d(10, 10, 3, stride=2, padding=1, output_padding=1)
        self.merge2 = ConvBlock(20, 10)
        self.up1 = nn.ConvTranspose2d(10, 6, 3, stride=2, padding=1, output_padding=1)
        self.merge1 = ConvBlock(12, 6)
        self.out = nn.Conv2d(6, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        skip1 = self.down1(x)
        skip2 = self.down2(self.pool(skip1))
        x = self.middle(self.pool(skip2))
        x = self.merge2(torch.cat([self.up2(x), skip2], dim=1))
        x = self.merge1(torch.cat([self.up1(x), skip1], dim=1))
        return self.out(x)


def loss(outputs: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy with smoothed labels, the mean over all pixels.

    Args:
        outputs: scores (N, C, H, W).
        targets: classes (N, H, W).
    """
    return functional.cross_entropy(outputs, targets, label_smoothing=0.1)


def setup(seed: int = 0):
    """The model as after some training (no scale is 1, no bias 0), Adam, two batches of four images
    with a class for each pixel, and the loss.
    """
    torch.manual_seed(seed)
    model = UNet()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.002, weight_decay=1e-4)
    draw = np.random.default_rng(seed)
    batches = []
    for _ in range(2):
        images = draw.standard_normal((4, 3, 12, 16), dtype=np.float32)
        classes = draw.integers(4, size=(4, 12, 16))
        batches.append((torch.from_numpy(images), torch.from_numpy(classes)))
    return model, optimizer, batches, loss

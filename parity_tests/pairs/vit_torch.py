"""A small Vision Transformer: Dosovitskiy et al., An image is worth 16 × 16 words, 2021."""

import numpy as np
import torch
from torch import Tensor, nn

WIDTH, PATCHES = 10, 12


class EncoderBlock(nn.Module):
    """Attention by two heads and two linear layers, each behind a norm; (N, T, WIDTH)."""

    def __init__(self) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(WIDTH, eps=1e-6)
        self.self_attention = nn.MultiheadAttention(WIDTH, num_heads=2, batch_first=True)
        self.ln_2 = nn.LayerNorm(WIDTH, eps=1e-6)
        self.mlp = nn.Sequential(nn.Linear(WIDTH, 18), nn.GELU(), nn.Linear(18, WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        y = self.ln_1(x)
        x = x + self.self_attention(y, y, y, need_weights=False)[0]
        return x + self.mlp(self.ln_2(x))


class VisionTransformer(nn.Module):
    """Patches of 4 × 4, a class token, two blocks; images (N, 3, 12, 16) to scores (N, 5)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv_proj = nn.Conv2d(3, WIDTH, 4, stride=4)
        self.class_token = nn.Parameter(torch.zeros(1, 1, WIDTH))
        self.pos_embedding = nn.Parameter(0.02 * torch.randn(1, 1 + PATCHES, WIDTH))
        self.layers = nn.Sequential(EncoderBlock(), EncoderBlock())
        self.ln = nn.LayerNorm(WIDTH, eps=1e-6)
        self.head = nn.Linear(WIDTH, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_proj(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.class_token.expand(len(x), -1, -1), x], dim=1)
        x = self.layers(x + self.pos_embedding)
        return self.head(self.ln(x)[:, 0])


def setup(seed: int = 0) -> tuple[nn.Module, torch.optim.Optimizer, list[tuple[Tensor, Tensor]]]:
    """The model as after some training (no scale is 1, no bias 0), AdamW, two batches of five."""
    torch.manual_seed(seed)
    model = VisionTransformer()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.001, weight_decay=0.05)
    draw = np.random.default_rng(seed)
    batches = []
    for _ in range(2):
        images = draw.standard_normal((5, 3, 12, 16), dtype=np.float32)
        labels = draw.integers(5, size=5)
        batches.append((torch.from_numpy(images), torch.from_numpy(labels)))
    return model, optimizer, batches

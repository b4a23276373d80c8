"""A Transformer encoder: Vaswani et al., Attention is all you need, 2017, section 3.1.

The norms come first, as in Xiong et al., On layer normalization in the Transformer architecture,
2020; GELU is Hendrycks and Gimpel's, Gaussian error linear units, 2016.
"""

import numpy as np
import torch
from torch import Tensor, nn


class EncoderBlock(nn.Module):
    """Attention by three heads and two linear layers, each added to what goes in; (N, T, 12)."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(12)
        self.self_attn = nn.MultiheadAttention(12, num_heads=3, batch_first=True)
        self.norm2 = nn.LayerNorm(12)
        self.linear1 = nn.Linear(12, 20)
        self.activation = nn.GELU()
        self.linear2 = nn.Linear(20, 12)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm1(x)
        x = x + self.self_attn(y, y, y, need_weights=False)[0]
        return x + self.linear2(self.activation(self.linear1(self.norm2(x))))


class Encoder(nn.Module):
    """Two blocks and the mean over places; sequences (N, T, 7) to scores (N, 5)."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(7, 12)
        self.layers = nn.Sequential(EncoderBlock(), EncoderBlock())
        self.norm = nn.LayerNorm(12)
        self.fc = nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.norm(self.layers(self.embed(x))).mean(1))


def setup(seed: int = 0) -> tuple[nn.Module, torch.optim.Optimizer, list[tuple[Tensor, Tensor]]]:
    """The model as after some training (no scale is 1, no bias 0), AdamW, and three batches of five
    sequences of nine places.
    """
    torch.manual_seed(seed)
    model = Encoder()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.002, weight_decay=0.01)
    draw = np.random.default_rng(seed)
    batches = []
    for _ in range(3):
        sequences = draw.standard_normal((5, 9, 7), dtype=np.float32)
        labels = draw.integers(5, size=5)
        batches.append((torch.from_numpy(sequences), torch.from_numpy(labels)))
    return model, optimizer, batches

"""A sequence classifier with an LSTM: Hochreiter and Schmidhuber, Long short-term memory, 1997.

With the forget gate of Gers et al., Learning to forget, 2000.
"""

import numpy as np
import torch
from torch import Tensor, nn


class Classifier(nn.Module):
    """Sequences (N, T, 7) to scores (N, 5), from the state after the last place."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(7, 6, batch_first=True)
        self.fc = nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        states, _ = self.lstm(x)
        return self.fc(states[:, -1])


def setup(seed: int = 0) -> tuple[nn.Module, torch.optim.Optimizer, list[tuple[Tensor, Tensor]]]:
    """The model, Adam, and four batches of five sequences of nine places."""
    torch.manual_seed(seed)
    model = Classifier()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    draw = np.random.default_rng(seed)
    batches = []
    for _ in range(4):
        sequences = draw.standard_normal((5, 9, 7), dtype=np.float32)
        labels = draw.integers(5, size=5)
        batches.append((torch.from_numpy(sequences), torch.from_numpy(labels)))
    return model, optimizer, batches

"""A small GPT-2: Radford et al., Language models are unsupervised multitask learners, 2019.

The unembedding is tied to the embedding: Press and Wolf, Using the output embedding to improve
language models, 2017.
"""

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

TOKENS, PLACES, WIDTH, HEADS = 17, 8, 12, 2


class Attention(nn.Module):
    """Each place attends to itself and to those before it; (N, T, WIDTH)."""

    def __init__(self) -> None:
        super().__init__()
        self.c_attn = nn.Linear(WIDTH, 3 * WIDTH)
        self.c_proj = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        examples, places, _ = x.shape
        heads = (examples, places, HEADS, WIDTH // HEADS)
        q, k, v = (part.view(heads).transpose(1, 2) for part in self.c_attn(x).split(WIDTH, dim=2))
        x = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.c_proj(x.transpose(1, 2).reshape(examples, places, WIDTH))


class Block(nn.Module):
    """Attention and two linear layers, each behind a norm and added to what goes in."""

    def __init__(self) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(WIDTH)
        self.attn = Attention()
        self.ln_2 = nn.LayerNorm(WIDTH)
        self.c_fc = nn.Linear(WIDTH, 20)
        self.gelu = nn.GELU(approximate="tanh")
        self.c_proj = nn.Linear(20, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.ln_1(x))
        return x + self.c_proj(self.gelu(self.c_fc(self.ln_2(x))))


class GPT(nn.Module):
    """Two blocks; tokens (N, T) to scores of each place's next token (N, T, TOKENS)."""

    def __init__(self) -> None:
        super().__init__()
        self.wte = nn.Embedding(TOKENS, WIDTH)
        self.wpe = nn.Embedding(PLACES, WIDTH)
        self.h = nn.ModuleList([Block(), Block()])
        self.ln_f = nn.LayerNorm(WIDTH)
        self.lm_head = nn.Linear(WIDTH, TOKENS, bias=False)
        self.lm_head.weight = self.wte.weight

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.wte(tokens) + self.wpe(torch.arange(tokens.shape[1], device=tokens.device))
        for block in self.h:
            x = block(x)
        return self.lm_head(self.ln_f(x))


def setup(seed: int = 0) -> tuple[nn.Module, torch.optim.Optimizer, list[tuple[Tensor, Tensor]]]:
    """The model as after some training (no scale is 1, no bias 0), AdamW, and three batches of four
    sequences with the token that follows each place.
    """
    torch.manual_seed(seed)
    model = GPT()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.001, betas=(0.9, 0.95), weight_decay=0.1)
    draw = np.random.default_rng(seed)
    batches = []
    for _ in range(3):
        tokens = torch.from_numpy(draw.integers(TOKENS, size=(4, PLACES + 1)))
        batches.append((tokens[:, :-1], tokens[:, 1:]))
    return model, optimizer, batches

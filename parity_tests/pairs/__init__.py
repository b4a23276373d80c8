"""Models written twice, in torch and in Flax: what a comparison of ports is held against.

`NAME_torch.py` and `NAME_flax.py` are an original and its port, as users write them: neither knows
of the other, each names its layers as its framework does, and each has `setup(seed)`
(docs/your-own-network.md). Both draw the same batches; their weights differ until they are matched.
"""

from pathlib import Path

SMALL = ("cnn", "resnet", "separable", "unet", "lstm", "encoder", "gpt", "vit")
PAIRS = (*SMALL, "resnet18")


def path(pair: str, side: str) -> Path:
    """The file of one side, torch or flax."""
    return Path(__file__).with_name(f"{pair}_{side}.py")

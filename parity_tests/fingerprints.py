"""Writes the SHA-256s that tests/test_torch_rng.py holds jaxmlp.torch_rng to; needs torch.

The weights are those of nn.Linear under torch.manual_seed(seed), the order that of a shuffling
DataLoader over three epochs with a test loader between them, as in the question's script.
"""

import hashlib
import itertools
import json
from pathlib import Path

import torch
from torch.utils.data import DataLoader, TensorDataset

from jaxmlp.commands import exit_status, flags

TARGET = Path(__file__).parent.parent / "tests" / "torch_fingerprints.json"
SHAPES = {
    "question": ((3072, 300, 10), False, "float32"),
    "bias": ((7, 5, 3), True, "float32"),
    "double": ((7, 5, 3), True, "float64"),
}
WEIGHT_SEEDS = [*range(97), 2**32 - 1, 2**32, 2**40 + 7]
ORDER_SEEDS = [*range(18), 2**32 + 5, 2**40 + 7]
IMAGES, BATCH, EPOCHS = 1000, 50, 3


def layers(seed: int, shape: str) -> list[torch.nn.Linear]:
    widths, bias, dtype = SHAPES[shape]
    torch.manual_seed(seed)
    pairs = itertools.pairwise(widths)
    return [torch.nn.Linear(i, o, bias=bias, dtype=getattr(torch, dtype)) for i, o in pairs]


def weights_sha256(seed: int, shape: str) -> str:
    digest = hashlib.sha256()
    for layer in layers(seed, shape):
        for parameter in layer.parameters():  # weight (out, in), then bias
            digest.update(parameter.detach().numpy().tobytes())
    return digest.hexdigest()


def order_sha256(seed: int) -> str:
    layers(seed, "bias")  # the weights come first out of the same generator
    train = DataLoader(TensorDataset(torch.arange(IMAGES)), batch_size=BATCH, shuffle=True)
    test = DataLoader(TensorDataset(torch.arange(BATCH)), batch_size=BATCH)
    digest = hashlib.sha256()
    for _ in range(EPOCHS):
        for (batch,) in train:
            digest.update(batch.numpy().astype("<i4").tobytes())
        list(test)
    return digest.hexdigest()


def main(arguments: list[str] | None = None) -> None:
    parser = flags.Parser(__doc__ or "")
    parser.add_argument(
        "--out",
        metavar="FILE",
        type=Path,
        default=TARGET,
        help="where they go (default: tests/torch_fingerprints.json of this checkout)",
    )
    values = parser.parse_args(arguments)
    with exit_status.one_line_errors("nothing was written", for_good=arguments is None):
        write(values.out)


def write(out: Path) -> None:
    """All fingerprints of the installed torch, as JSON."""
    stored = {
        "torch": torch.__version__.split("+")[0],
        "weights": {
            shape: {str(seed): weights_sha256(seed, shape) for seed in WEIGHT_SEEDS}
            for shape in SHAPES
        },
        "order": {str(seed): order_sha256(seed) for seed in ORDER_SEEDS},
    }
    out.write_text(json.dumps(stored, indent=1) + "\n")
    print(f"wrote {out}")

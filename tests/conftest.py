"""Shared by the tests: a tiny data set whose sizes are all distinct, and a cache of its own."""

from pathlib import Path

import numpy as np
import pytest

TRAIN, TEST, CHANNELS, HEIGHT, WIDTH, CLASSES = 24, 10, 3, 5, 4, 7


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    """No test reads or fills the user's cache, data directory or compiled programs."""
    root = tmp_path_factory.mktemp("own")
    monkeypatch.setenv("JAXMLP_CACHE", str(root / "cache"))
    monkeypatch.setenv("TFDS_DATA_DIR", str(root / "no-tfds"))


def arrays(seed: int = 0) -> dict[str, np.ndarray]:
    """Random images, channels last, and labels that use every class."""
    draw = np.random.default_rng(seed)
    sizes = {"train": TRAIN, "test": TEST}
    made = {
        f"{split}_images": draw.integers(0, 256, (size, HEIGHT, WIDTH, CHANNELS), dtype=np.uint8)
        for split, size in sizes.items()
    }
    labels = {f"{split}_labels": np.arange(size) % CLASSES for split, size in sizes.items()}
    return made | labels


@pytest.fixture
def tiny_npz(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.npz"
    np.savez(path, **arrays())
    return path


@pytest.fixture
def tiny_dataset(tiny_npz: Path):
    from jaxmlp import data

    return data.load(str(tiny_npz))

"""A tiny CIFAR-10 in torchvision's format, whose checksums torchvision is made to expect."""

import hashlib
import pickle
from pathlib import Path

import numpy as np


def write(root: Path, content: dict[str, np.ndarray], monkeypatch) -> None:
    """cifar-10-batches-py under root: the training images in five batches, the test's in one."""
    from torchref import data

    cifar10 = data.import_torchvision().datasets.CIFAR10
    folder = root / cifar10.base_folder
    folder.mkdir(parents=True)
    parts = np.array_split(np.arange(len(content["train_images"])), 5)
    train = [(f"data_batch_{i}", "train", part) for i, part in enumerate(parts, 1)]
    lists: dict[str, list] = {"train": [], "test": []}
    for name, split, chosen in [*train, ("test_batch", "test", slice(None))]:
        images = content[f"{split}_images"][chosen]
        entry = {
            "data": images.reshape(len(images), -1),
            "labels": content[f"{split}_labels"][chosen].tolist(),
        }
        lists[split].append([name, _write(folder / name, entry)])
    names = {"label_names": [str(i) for i in range(10)]}
    meta = {**cifar10.meta, "md5": _write(folder / cifar10.meta["filename"], names)}
    monkeypatch.setattr(cifar10, "train_list", lists["train"])
    monkeypatch.setattr(cifar10, "test_list", lists["test"])
    monkeypatch.setattr(cifar10, "meta", meta)


def _write(path: Path, entry: dict) -> str:
    path.write_bytes(pickle.dumps(entry))
    return hashlib.md5(path.read_bytes()).hexdigest()

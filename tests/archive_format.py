"""A tiny CIFAR-10 in the format of the official binary archive."""

import hashlib
import io
import tarfile
from pathlib import Path

import numpy as np

from jaxmlp.data import files as data_files


def archive(leave_out: str = "", spoil: str = "") -> tuple[bytes, dict[str, np.ndarray]]:
    """An archive of 7 + 3 images, and the arrays it holds."""
    draw = np.random.default_rng(3)
    members = data_files.TRAIN_MEMBERS + data_files.TEST_MEMBERS
    counts = dict(zip(members, (1, 2, 1, 1, 2, 3), strict=True))
    batches = {}
    for name, count in counts.items():
        batches[name] = draw.integers(0, 256, (count, 3073), np.uint8)
        batches[name][:, 0] %= 10
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as tar:
        for name in reversed(batches):  # the order of the members must not matter
            content = batches[name].tobytes()[: -1 if name == spoil else None]
            if name != leave_out:
                member = tarfile.TarInfo(name)
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    train = np.concatenate([batches[name] for name in data_files.TRAIN_MEMBERS])
    test = batches[data_files.TEST_MEMBERS[0]]
    arrays = {}
    for split, part in (("train", train), ("test", test)):
        arrays[f"{split}_images"] = part[:, 1:].reshape(-1, 3, 32, 32)
        arrays[f"{split}_labels"] = part[:, 0].astype(np.int32)
    return file.getvalue(), arrays


def write_archive(path: Path, monkeypatch, leave_out: str = "", spoil: str = "") -> dict:
    """Writes an archive, official by decree; the arrays it holds."""
    content, arrays = archive(leave_out, spoil)
    path.write_bytes(content)
    monkeypatch.setattr(data_files, "ARCHIVE_MD5", hashlib.md5(content).hexdigest())
    return arrays

"""JSON that is believed only as it was written: a document with a seal, a file of such lines.

The seal is the last field, `sha256`: the digest of the text with zeros in its place.
"""

import contextlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxmlp import atomic
from jaxmlp.record.sums import digest

ZEROS = b"0" * 64
FIELD = "sha256"


# ---- a document


def seal(document: Mapping[str, Any], indent: int | None = None, strict: bool = True) -> bytes:
    """The document as JSON, with its seal; one line without an indent.

    Args:
        strict: refuse numbers that are not finite, which JSON does not know.
    """
    sealed = {**document, FIELD: ZEROS.decode()}
    text = json.dumps(sealed, indent=indent, allow_nan=not strict).encode() + b"\n"
    head, _, tail = text.rpartition(ZEROS)
    return head + digest(text).encode() + tail


def unseal(text: bytes) -> dict[str, Any]:
    """The document of a sealed text, without the seal.

    Raises:
        ValueError: it is not what was sealed.
    """
    document = parse(text)
    sha256 = document.pop(FIELD, None)
    if not isinstance(sha256, str) or not re.fullmatch("[0-9a-f]{64}", sha256):
        raise ValueError("it has no checksum")
    head, _, tail = text.rpartition(sha256.encode())
    if digest(head + ZEROS + tail) != sha256:
        raise ValueError("its checksum does not match")
    return document


def parse(text: bytes) -> dict[str, Any]:
    """The object that a JSON text holds.

    Raises:
        ValueError: it holds none.
    """
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):  # not UTF-8, not JSON, or nested too deep
        raise ValueError("it is no JSON") from None
    if not isinstance(document, dict):
        raise ValueError("it holds no JSON object")
    return document


# ---- a file of sealed lines


def read_lines(path: Path) -> tuple[list[dict[str, Any]], int]:
    """The documents of a file's sealed lines, and how many lines are none.

    Raises:
        ValueError: no line is one: the file is somebody else's.
        OSError: it cannot be read.
    """
    if not os.path.lexists(path):
        return [], 0
    lines: list[bytes] = []
    with contextlib.suppress(FileNotFoundError):  # what is no file has no line
        lines = [line for line in atomic.read_file(path).split(b"\n") if line.strip()]
    documents = []
    for line in lines:
        with contextlib.suppress(ValueError):
            documents.append(unseal(line + b"\n"))
    if not documents:
        raise ValueError(
            f"{path} is damaged, or somebody else's; move it away, or choose another --out than "
            f"{path.parent}"
        )
    return documents, len(lines) - len(documents)


def append_line(path: Path, document: Mapping[str, Any], key: str) -> None:
    """Adds a sealed line; what the file holds stays as it is, a line that was cut off too.

    Args:
        key: a digest of whose file it is.

    Raises:
        OSError: the disk is full or cannot be written.
    """
    line = seal(document, strict=False)
    if not path.exists():  # whole, so that a file of ours always begins with a line of ours
        atomic.replace(path, line, key)
        return
    with path.open("a+b") as file:
        if file.tell():
            file.seek(-1, os.SEEK_END)
            line = line if file.read() == b"\n" else b"\n" + line
        file.write(line)
        atomic.flush(file)

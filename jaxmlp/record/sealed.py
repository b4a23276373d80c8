"""Files that are believed only as they were written, and that replace nothing but their own kind.

A sealed text is JSON whose last field, `sha256`, is the digest of the text with zeros in its place.
A directory's SHA256SUMS, in the format of `sha256sum -c`, names what was written there: a file is
listed before it appears and goes before it is listed anew, so that at any moment what is not listed
with its own digest is somebody else's.
"""

import contextlib
import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

SUMS = "SHA256SUMS"
ZEROS = b"0" * 64
FIELD = "sha256"


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


# ---- JSON with a seal


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
    own = document.pop(FIELD, None)
    if not isinstance(own, str) or not re.fullmatch("[0-9a-f]{64}", own):
        raise ValueError("it has no checksum")
    head, _, tail = text.rpartition(own.encode())
    if digest(head + ZEROS + tail) != own:
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
    lines = [line for line in _content(path).split(b"\n") if line.strip()]
    documents = []
    for line in lines:
        with contextlib.suppress(ValueError):
            documents.append(unseal(line + b"\n"))
    if not documents:
        raise ValueError(f"{path} is damaged, or somebody else's; {_away(path)}")
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
        write(path, line, key)
        return
    with path.open("a+b") as file:
        if file.tell():
            file.seek(-1, os.SEEK_END)
            line = line if file.read() == b"\n" else b"\n" + line
        file.write(line)
        file.flush()
        os.fsync(file.fileno())


# ---- whole files


def partial(path: Path, key: str) -> Path:
    """Where a file is while it is written: a name that nobody else gives."""
    return path.with_name(f".{path.name}.{key[:16]}.partial")


def write(path: Path, content: bytes, key: str) -> None:
    """A file that appears whole or not at all.

    Args:
        key: a digest of whose file it is.

    Raises:
        OSError: the disk is full or cannot be written.
    """
    unready = partial(path, key)
    try:
        with unready.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        unready.replace(path)
    except OSError as error:  # with the file's name, not the partial's
        raise OSError(error.errno, error.errno and os.strerror(error.errno), str(path)) from error
    finally:
        unready.unlink(missing_ok=True)


class Sums:
    """A directory's SHA256SUMS.

    Args:
        names: a pattern of the names that it may list.
        key: a digest of whose files they are.
    """

    def __init__(self, directory: Path, names: str, key: str) -> None:
        self.directory, self.names, self.key = directory, names, key

    def read(self) -> dict[str, str]:
        """What is listed: digests by name.

        Raises:
            ValueError: a line is none of ours.
        """
        path = self.directory / SUMS
        if not os.path.lexists(path):
            return {}
        found: dict[str, str] = {}
        lines = _content(path).decode(errors="replace").splitlines(keepends=True)
        for line in lines or [""]:  # ours is never empty
            if not (match := re.fullmatch(rf"([0-9a-f]{{64}})  ({self.names})\n", line)):
                raise ValueError(f"{path} is damaged, or somebody else's; {_away(path)}")
            found[match[2]] = match[1]
        return found

    def damaged(self, names: Iterable[str]) -> list[str]:
        """The names that are not there as they are listed."""
        listed = self.read()
        return [name for name in names if name not in listed or self._digest(name) != listed[name]]

    def check(self, names: Iterable[str]) -> None:
        """Sees that files of these names may be written.

        Raises:
            ValueError: something stands there that is not known to be of the same kind.
        """
        names = [name for name in names if os.path.lexists(self.directory / name)]
        for name in self.damaged(names):
            path = self.directory / name
            raise ValueError(
                f"{path} is not as it was written here, or somebody else's; {_away(path)}"
            )

    def remove(self, names: Iterable[str]) -> None:
        """Removes files; the list still has them, until it is written anew.

        Raises:
            ValueError: one is not as it is listed.
        """
        names = list(names)
        self.check(names)
        for name in names:
            (self.directory / name).unlink(missing_ok=True)

    def put(self, files: Mapping[str, bytes], besides: Mapping[str, str] | None = None) -> None:
        """Writes files, in the place of those of the same kind.

        Args:
            besides: digests to list of what is written by others.

        Raises:
            ValueError: something else stands there.
            OSError: the disk is full or cannot be written.
        """
        self.remove(files)
        digests = {name: digest(content) for name, content in files.items()}
        listed = self.read() | dict(besides or {}) | digests
        lines = "".join(f"{own}  {name}\n" for name, own in listed.items())
        write(self.directory / SUMS, lines.encode(), self.key)
        for name, content in files.items():
            write(self.directory / name, content, self.key)

    def _digest(self, name: str) -> str | None:
        try:
            return digest(_content(self.directory / name))
        except OSError:
            return None


def _content(path: Path) -> bytes:
    """A file's content; of what is no file, none: a pipe would wait for a writer."""
    return path.read_bytes() if path.is_file() else b""


def _away(path: Path) -> str:
    return f"move it away, or choose another --out than {path.parent}"

"""SHA256SUMS: the digests of a directory's files, in the format of `sha256sum -c`."""

import hashlib
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from jaxmlp import atomic

SUMS = "SHA256SUMS"
LINE = re.compile(r"([0-9a-f]{64}) [ *]([\w.-]+)", re.ASCII)


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def listing(digests: Mapping[str, str]) -> bytes:
    """The content of SHA256SUMS, from the digests by name."""
    return "".join(f"{sha256}  {name}\n" for name, sha256 in digests.items()).encode()


def parse(content: bytes) -> tuple[dict[str, str], bool]:
    """Digests by name, of the lines that are in order; and whether all are, each name once."""
    *lines, rest = content.decode(errors="replace").split("\n")
    digests: dict[str, str] = {}
    for line in [*lines, rest]:
        if match := LINE.fullmatch(line):
            digests[match[2]] = match[1]
    return digests, not rest and len(digests) == len(lines)


class Sums:
    """A directory's SHA256SUMS, which guards what of it may be replaced.

    A file is listed before it appears, and goes before it is listed anew, so that at any moment
    what is not listed with its own digest is somebody else's.

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
        listed, in_order = parse(_content(path))
        ours = all(re.fullmatch(self.names, name) for name in listed)
        if not (listed and in_order and ours):  # ours is never empty
            raise ValueError(f"{path} is damaged, or somebody else's; {_away(path)}")
        return listed

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
        atomic.replace(self.directory / SUMS, listing(listed), self.key)
        for name, content in files.items():
            atomic.replace(self.directory / name, content, self.key)

    def _digest(self, name: str) -> str | None:
        try:
            return digest(atomic.read_file(self.directory / name))
        except OSError:
            return None


def _content(path: Path) -> bytes:
    """A list's content; of what is no file, none."""
    try:
        return atomic.read_file(path)
    except FileNotFoundError:
        return b""


def _away(path: Path) -> str:
    return f"move it away, or choose another --out than {path.parent}"

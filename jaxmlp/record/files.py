"""The files of a run's record: their names, their seal, and how they are read.

SHA256SUMS   of the other files, the last to be written; `sha256sum -c SHA256SUMS` checks them
"""

import contextlib
import hashlib
import json
import re
import stat
from collections.abc import Mapping
from pathlib import Path

RECORD = ("result.json", "steps.npz", "params.npz")
FIGURES = ("curves.png", "first_steps.png", "weights.png")
SUMS = "SHA256SUMS"
KNOWN = (*RECORD, *FIGURES, SUMS)  # every name that a record has, or had under an earlier schema
READY = ".jaxmlp-ready"  # run_directory's: a whole record, whose files are not yet all in place
LINE = re.compile(r"([0-9a-f]{64}) [ *]([\w.-]+)", re.ASCII)  # of `sha256sum`


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def sums(files: Mapping[str, bytes]) -> bytes:
    """The content of SHA256SUMS."""
    lines = (f"{digest(content)}  {name}\n" for name, content in sorted(files.items()))
    return "".join(lines).encode()


def file(path: Path) -> bytes:
    """A file's content.

    Raises:
        FileNotFoundError: there is none, or something else that a program might wait for forever.
    """
    try:
        if stat.S_ISREG(path.stat().st_mode):
            return path.read_bytes()
    except NotADirectoryError:
        pass
    raise FileNotFoundError(f"{path} is no file")


def content(out: Path, name: str) -> bytes:
    """A file of the record, wherever it lies while the record is moved into place.

    Raises:
        FileNotFoundError: there is none.
    """
    with contextlib.suppress(FileNotFoundError):
        return file(out / READY / name)
    return file(out / name)


def listed(directory: Path) -> dict[str, str]:
    """Digests by name, of those lines of SHA256SUMS that are in order."""
    try:
        lines = file(directory / SUMS).decode(errors="replace").split("\n")
    except OSError:
        return {}
    matches = [LINE.fullmatch(line) for line in lines]
    return {match[2]: match[1] for match in matches if match}


def is_record(directory: Path) -> bool:
    """Whether a record stands here, be it damaged: its sums or its result say so."""
    if len(listed(directory).keys() & set(RECORD)) > 1:
        return True
    try:
        result = json.loads(file(directory / "result.json"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(result, dict) and {"schema", "framework"} <= result.keys()


def is_sealed(out: Path) -> bool:
    """Whether there is a SHA256SUMS; records of schema 1 have none."""
    return any((directory / SUMS).is_file() for directory in (out / READY, out))


def read(out: Path) -> dict[str, bytes]:
    """Every file of the record, each as SHA256SUMS says.

    Raises:
        ValueError: one is missing or damaged; one line.
    """
    try:
        *lines, rest = content(out, SUMS).decode().split("\n")
    except FileNotFoundError:
        raise ValueError(f"{SUMS} is missing") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{SUMS} cannot be read: {error}") from None
    matches = [LINE.fullmatch(line) for line in lines]
    digests = {match[2]: match[1] for match in matches if match}
    if rest or len(digests) != len(lines):
        raise ValueError(f"{SUMS} is damaged")
    files: dict[str, bytes] = {}
    for name in dict.fromkeys((*RECORD, *digests)):
        try:
            files[name] = content(out, name)
        except FileNotFoundError:
            raise ValueError(f"{name} is missing") from None
        except OSError as error:
            raise ValueError(f"{name} cannot be read: {error.strerror}") from None
        if digest(files[name]) != digests.get(name):
            raise ValueError(f"{name} is not what {SUMS} says")
    return files

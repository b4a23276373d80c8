"""The files of a run's record: their names, and how they are read: each as SHA256SUMS says.

SHA256SUMS, of the other files, is the last to be written.
"""

import contextlib
import json
from collections.abc import Mapping
from pathlib import Path

from jaxmlp.atomic import read_file
from jaxmlp.record.sums import SUMS, digest, listing, parse

RECORD = ("result.json", "steps.npz", "params.npz")
FIGURES = ("curves.png", "first_steps.png", "weights.png")
KNOWN = (*RECORD, *FIGURES, SUMS)  # every name that a record has, or had under an earlier schema
READY = ".jaxmlp-ready"  # run_directory's: a whole record, whose files are not yet all in place


def sums(files: Mapping[str, bytes]) -> bytes:
    """The content of SHA256SUMS, from the other files' contents by name."""
    return listing({name: digest(content) for name, content in sorted(files.items())})


def content(out: Path, name: str) -> bytes:
    """A file of the record, wherever it lies while the record is moved into place.

    Raises:
        FileNotFoundError: there is none.
    """
    with contextlib.suppress(FileNotFoundError):
        return read_file(out / READY / name)
    return read_file(out / name)


def listed(directory: Path) -> dict[str, str]:
    """Digests by name, of those lines of SHA256SUMS that are in order."""
    try:
        return parse(read_file(directory / SUMS))[0]
    except OSError:
        return {}


def is_record(directory: Path) -> bool:
    """Whether a record stands here, be it damaged: its sums or its result say so."""
    if len(listed(directory).keys() & set(RECORD)) > 1:
        return True
    try:
        result = json.loads(read_file(directory / "result.json"))
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
        digests, in_order = parse(content(out, SUMS))
    except FileNotFoundError:
        raise ValueError(f"{SUMS} is missing") from None
    except OSError as error:
        raise ValueError(f"{SUMS} cannot be read: {error}") from None
    if not in_order:
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

"""The flag --tensorboard: event files of a run or a sweep, once its record is safe."""

import argparse
import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jaxmlp import atomic
from jaxmlp.commands import invocation


def add_flag(group: Any) -> None:
    group.add_argument(
        "--tensorboard",
        metavar="DIR",
        type=Path,
        help="write event files for TensorBoard, too, in DIR/NAME, as the record's\n"
        "directory is named (needs tensorboardX)",
    )


def check(values: argparse.Namespace) -> None:
    """Sees, before anything is trained, whether event files can be written where they are wanted.

    Raises:
        ValueError: tensorboardX does not load, or a file stands there.
        OSError: the directory cannot be made, or written.
    """
    directory = values.tensorboard
    if directory is None:
        return
    try:
        importlib.import_module("tensorboardX.record_writer")
    except ImportError:
        remedy = invocation.installing("tensorboard")
        raise ValueError(f"--tensorboard needs tensorboardX: {remedy}") from None
    if directory.exists() and not directory.is_dir():
        raise ValueError(f"--tensorboard {directory} is a file; give a directory's name")
    directory.mkdir(parents=True, exist_ok=True)
    atomic.reserve(directory, 1)


def write(
    values: argparse.Namespace, write_from: Callable[[Path, Path], Path], out: Path, console: Any
) -> None:
    """Writes the event files, if they are asked for, and says where.

    Args:
        write_from: record.tensorboard.write_run, or write_sweep.
        out: the record's directory.

    Raises:
        OSError: the disk is full or cannot be written.
    """
    if values.tensorboard is not None:
        directory = write_from(values.tensorboard, out)
        console.print(f"tensorboard: {directory}", soft_wrap=True, markup=False)

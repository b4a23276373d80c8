"""Where checkpoints are kept: by Orbax, in a directory or a bucket, written in the background.

DIR/EPOCH/state    parameters and optimizer state after that many epochs
DIR/EPOCH/epochs   bytes: what the epochs so far left for the record
DIR/EPOCH/about    JSON: whose run it is, and digests
"""

import contextlib
import logging
import os
import re
import sys
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from jaxtyping import UInt8

from jaxmlp.errors import DataError
from jaxmlp.training import checkpoint_directory
from jaxmlp.training.step import State

EPOCHS_KEPT = 2  # the newest, and one to fall back on should it be damaged
OS_ERROR = re.compile(r"os_error_code='(\d+)'")  # in TensorStore's messages
REPORTED = 200  # characters of Orbax's errors, which run to pages


class Items(NamedTuple):
    """What a checkpoint holds."""

    state: State
    epochs: UInt8[np.ndarray, " bytes"]
    about: dict[str, Any]


class Storage:
    """The newest EPOCHS_KEPT checkpoints of a run, by epoch; `opened` makes one.

    Args:
        path: the directory, claimed.
        shown: how the user wrote it.
    """

    def __init__(self, path: epath.Path, shown: str) -> None:
        self.path, self.shown = path, shown
        self.is_damaged = False  # whether a checkpoint could not be read
        options = ocp.CheckpointManagerOptions(
            max_to_keep=EPOCHS_KEPT,
            cleanup_tmp_directories=not checkpoint_directory.is_local(path),
        )
        self.manager = ocp.CheckpointManager(path, options=options)

    def epochs(self) -> list[int]:
        """The checkpoints that stand there, the newest first."""
        return sorted(self.manager.all_steps(), reverse=True)

    def about(self, epoch: int) -> Any:
        """Whose checkpoint it says it is: JSON, of whatever kind; None if it cannot be read."""
        read = self._read(epoch, about=ocp.args.JsonRestore())
        return read and read.about

    def read(self, epoch: int, like: State) -> Items | None:
        """A checkpoint; None if it cannot be read.

        Args:
            like: a state of the same shapes and types, on the devices where this one is to lie.
        """
        target = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), like
        )
        read = self._read(
            epoch,
            state=ocp.args.StandardRestore(target),
            epochs=ocp.args.StandardRestore(),
            about=ocp.args.JsonRestore(),
        )
        return read and Items(read.state, read.epochs, read.about)

    def _read(self, epoch: int, **items: Any) -> Any:
        with contextlib.suppress(Exception):  # a damaged file makes Orbax raise anything
            return self.manager.restore(epoch, args=ocp.args.Composite(**items))
        self.is_damaged = True
        return None

    def write(self, epoch: int, items: Items) -> None:
        """Writes a checkpoint in the background.

        Orbax has copied the state to the host when its `save` returns, or holds it so that the next
        epoch cannot write over it.

        Raises:
            DataError, OSError: this or the checkpoint before could not be saved.
        """
        with self._errors_in_a_line():
            self.manager.save(
                epoch,
                args=ocp.args.Composite(
                    state=ocp.args.StandardSave(items.state),
                    epochs=ocp.args.StandardSave(items.epochs),
                    about=ocp.args.JsonSave(items.about),
                ),
            )

    def wait(self) -> None:
        """Returns when all is written.

        Raises:
            DataError, OSError: it could not be.
        """
        with self._errors_in_a_line():
            self.manager.wait_until_finished()

    def close(self) -> None:
        """Ends Orbax's work on the directory, when all is written.

        Raises:
            DataError, OSError: it could not be.
        """
        with self._errors_in_a_line():
            self.manager.close()

    def remove(self, epoch: int) -> None:
        self.manager.delete(epoch)

    def remove_all(self) -> None:
        """Removes all checkpoints, and the directory if nothing else is in it.

        Raises:
            DataError, OSError: the disk cannot be written.
        """
        self.wait()
        checkpoint_directory.remove(self.path)

    def is_preempted(self, epoch: int) -> bool:
        """Whether SIGTERM has come to one of several processes; the same answer in all of them."""
        return self.manager.reached_preemption(epoch)

    @contextlib.contextmanager
    def _errors_in_a_line(self) -> Iterator[None]:
        try:
            yield
        except OSError:
            raise
        except Exception as error:
            if code := OS_ERROR.search(str(error)):
                number = int(code[1])
                raise OSError(number, os.strerror(number), self.shown) from error
            what = " ".join(str(error).split())[:REPORTED]
            raise DataError(
                f"cannot save in {self.shown}: {what}; mend it, and the same command goes on"
            ) from error


@contextlib.contextmanager
def opened(directory: str, size: int) -> Iterator[Storage]:
    """The storage in a directory, which is kept for this process meanwhile.

    Args:
        directory: a path, or a bucket's as Orbax takes it (gs://, s3://).
        size: bytes of a checkpoint, to see whether the disk takes as many as there will be.

    Raises:
        ValueError: the directory cannot hold checkpoints, or another run is at work in it.
        OSError: it cannot be written.
    """
    path = checkpoint_directory.locate(directory)
    at_a_time = EPOCHS_KEPT + 1  # the oldest goes only when the next is whole
    with checkpoint_directory.claimed(path, directory, size, at_a_time):
        speak_again = _hush_damage()
        storage = Storage(path, directory)
        try:
            yield storage
        finally:
            storage.close()
            if not storage.is_damaged:  # else Orbax's leavings are freed at any later time
                speak_again()


def _hush_damage() -> Callable[[], None]:
    """Silences what Orbax says of damaged files: pages, and the user is told in one line.

    These are its logs; and when one read fails, it gives up the others and closes their event loop,
    whereupon Python complains of every coroutine that is freed unfinished, and of each time that
    TensorStore comes back to the loop.

    Returns:
        A function that undoes it.
    """

    def is_not_orbaxs(record: logging.LogRecord) -> bool:
        return "orbax" not in record.pathname + record.getMessage()

    def complain(unraisable: Any) -> None:
        coroutine = getattr(unraisable.object, "cr_code", None)
        given_up = coroutine is not None and "orbax" in coroutine.co_filename
        if not given_up and str(unraisable.exc_value) != "Event loop is closed":
            before(unraisable)

    loggers = [logging.getLogger(name) for name in ("absl", "asyncio")]
    before, sys.unraisablehook = sys.unraisablehook, complain
    for logger in loggers:
        logger.addFilter(is_not_orbaxs)

    def undo() -> None:
        for logger in loggers:
            logger.removeFilter(is_not_orbaxs)
        if sys.unraisablehook is complain:  # else another is on top, and needs this one
            sys.unraisablehook = before

    return undo

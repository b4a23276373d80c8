"""Save and resume: a run's last two finished epochs, in a directory or a bucket, by Orbax.

    DIR/EPOCH/state    parameters and optimizer state after that many epochs
    DIR/EPOCH/epochs   what the epochs so far left for the record: the bytes of an .npz
    DIR/EPOCH/about    whose run it is, and digests: Orbax does not see a flipped bit in an array

The order of the batches needs no place: seed and epoch say where it stands. A resumed run's record
is the uninterrupted one's, bit for bit but for times.
"""

import contextlib
import functools
import hashlib
import io
import itertools
import json
import logging
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

import jax
import numpy as np
import orbax.checkpoint as ocp

from jaxmlp.data.dataset import Dataset
from jaxmlp.device.precision import float_dtype, precision
from jaxmlp.errors import DataError, TerminatedError
from jaxmlp.experiment import Experiment
from jaxmlp.record import run_record as record
from jaxmlp.record.metrics import EpochResult, Evaluation, StepMetrics
from jaxmlp.train import checkpoint_directory
from jaxmlp.train.run import Run
from jaxmlp.train.step import State, hyperparameters, initial_state

KEPT = 2  # the newest, and one to fall back on should it be damaged
OS_ERROR = re.compile(r"os_error_code='(\d+)'")  # in TensorStore's messages
REPORTED = 200  # characters of Orbax's errors, which run to pages


def provenance(
    experiment: Experiment, dataset: Dataset, environment: dict[str, Any]
) -> dict[str, Any]:
    """All that a run's numbers follow from, flat: only a run that agrees in all may go on.

    Args:
        environment: record.environment's.
    """
    sources = (path.read_bytes() for path in sorted(Path(__file__).parents[1].rglob("*.py")))
    return {
        **experiment.to_json(),
        "data": f"{dataset.name} {dataset.sha256[:10]}",
        "device": environment["device"],
        **environment["versions"],
        **environment["settings"],
        "jaxmlp": _digest(*sources)[:10],
    }


def state_size(experiment: Experiment, dataset: Dataset) -> int:
    """Bytes of the parameters and the optimizer's state."""
    widths = dataset.widths(experiment.hidden)
    with precision(experiment):
        dtype, hyper = float_dtype(experiment), hyperparameters(experiment)
        shapes = {
            "kernel": lambda fan_in, fan_out: (fan_in, fan_out),
            "bias": lambda _, out: (out,),
        }
        weights = [
            {name: jax.ShapeDtypeStruct(shapes[name](*pair), dtype) for name in experiment.tensors}
            for pair in itertools.pairwise(widths)
        ]
        state = jax.eval_shape(lambda w: initial_state(experiment, w, hyper, 1), weights)
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))


class Checkpoints:
    """The checkpoints of one run. As a context, it also notes SIGTERM instead of dying of it.

    Args:
        directory: a path, or a bucket's as Orbax takes it (gs://, s3://).
        every: epochs from one checkpoint to the next.
        run: `provenance`'s.
        warn: takes a line of text.
        size: bytes of a state, to see at the start whether the disk takes as many as there will be.

    Raises:
        ValueError: the directory cannot hold this run's checkpoints, or another run is at work.
        DataError: none of its checkpoints is intact.
        OSError: it cannot be written.
    """

    def __init__(
        self,
        directory: str,
        every: int,
        run: dict[str, Any],
        warn: Callable[[str], None],
        size: int = 0,
    ) -> None:
        self.directory, self.every, self.run, self.warn = directory, every, run, warn
        self.terminated = False
        _hush_orbax()
        self.path = checkpoint_directory.locate(directory)
        with contextlib.ExitStack() as claim:
            # The oldest goes only when the next is whole.
            claim.enter_context(checkpoint_directory.claimed(self.path, directory, size, KEPT + 1))
            options = ocp.CheckpointManagerOptions(
                max_to_keep=KEPT,
                cleanup_tmp_directories=not checkpoint_directory.is_local(self.path),
            )
            self.manager = ocp.CheckpointManager(self.path, options=options)
            self.epochs = [step for step in self._newest_first() if self._is_this_runs(step)]
            self._fail_without_intact()
            self.claim = claim.pop_all()

    def __enter__(self) -> Self:
        if jax.process_count() == 1:  # else JAX's own handler, which tells the other processes
            self._before = signal.signal(signal.SIGTERM, self._note)
        return self

    def __exit__(self, kind, error, traceback) -> None:
        try:
            with self._saving():
                self.manager.close()
        finally:
            if jax.process_count() == 1:
                signal.signal(signal.SIGTERM, self._before)
            self.claim.close()

    def _note(self, number, frame) -> None:
        self.terminated = True

    def _newest_first(self) -> list[int]:
        return sorted(self.manager.all_steps(), reverse=True)

    def _is_this_runs(self, epoch: int) -> bool:
        """Whether the checkpoint says so; False, with a warning, if it is damaged.

        Raises:
            ValueError: it is intact and another run's.
        """
        read = self._read(epoch, about=ocp.args.JsonRestore())
        about = read.about if read and isinstance(read.about, dict) else {}
        if about.get("sha256") != _seal(about) or not isinstance(about.get("run"), dict):
            self._warn_of(epoch)
            return False
        there, here = about["run"], json.loads(json.dumps(self.run))
        names = [name for name in here | there if here.get(name) != there.get(name)]
        if names:
            differences = ", ".join(
                f"{name} {_word(there.get(name))} there and {_word(here.get(name))} here"
                for name in names
            )
            raise ValueError(
                f"{self.directory} holds another run's checkpoint: {differences}; give the same "
                "flags, choose another --checkpoint, or remove this one"
            )
        return True

    def _warn_of(self, epoch: int) -> None:
        self.warn(f"the checkpoint {self.directory}/{epoch} is damaged and not used")

    def _fail_without_intact(self) -> None:
        if self._newest_first() and not self.epochs:
            raise DataError(
                f"no checkpoint in {self.directory} is intact; remove it to train from the start"
            )

    def _read(self, epoch: int, **items: Any) -> Any:
        """The items of a checkpoint by name; None if they cannot be read."""
        try:
            return self.manager.restore(epoch, args=ocp.args.Composite(**items))
        except Exception:  # a damaged file makes Orbax raise anything
            return None

    def resume(self, run: Run) -> list[EpochResult]:
        """What the finished epochs left; the run goes on after them.

        Raises:
            DataError: there are checkpoints, and none is intact.
            TerminatedError: SIGTERM has come.
        """
        finished: list[EpochResult] = []
        for epoch in list(self.epochs):
            with precision(run.experiment):
                restored = self._restore(epoch, run.state)
            if restored:
                state, finished = restored
                run.resume(state, epoch)
                break
            self._warn_of(epoch)
            self.epochs.remove(epoch)
        self._fail_without_intact()
        for epoch in set(self._newest_first()) - set(self.epochs):
            self.manager.delete(epoch)  # or the run could not save that epoch when it comes by
        self._stop_if_terminated(len(finished), run.experiment.epochs)
        return finished

    def _restore(self, epoch: int, like: State) -> tuple[State, list[EpochResult]] | None:
        """State and epochs of a checkpoint; None if it is damaged."""
        target = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), like
        )
        items = self._read(
            epoch,
            state=ocp.args.StandardRestore(target),
            epochs=ocp.args.StandardRestore(),
            about=ocp.args.JsonRestore(),
        )
        if items is None or _arrays_digest(items.state, items.epochs) != items.about.get("arrays"):
            return None
        finished = _unpack(np.asarray(items.epochs), items.state)
        # Under another name it is as whole, and of another epoch.
        return (items.state, finished) if len(finished) == epoch else None

    def save(self, run: Run, finished: list[EpochResult], last: bool) -> None:
        """Saves, in the background, if it is time to.

        Orbax has copied the state to the host when its `save` returns, or holds it so that the next
        epoch cannot write over it.

        Args:
            last: no other epoch will follow in this process.

        Raises:
            DataError, OSError: this or the checkpoint before could not be saved.
            TerminatedError: SIGTERM has come; the state is saved.
        """
        epoch, asked = len(finished), run.experiment.epochs
        self.terminated |= self.manager.reached_preemption(epoch)
        if last or self.terminated or epoch == asked or epoch % self.every == 0:
            packed = _pack(finished)
            about = {"run": self.run, "arrays": _arrays_digest(run.state, packed)}
            with self._saving():
                self.manager.save(
                    epoch,
                    args=ocp.args.Composite(
                        state=ocp.args.StandardSave(run.state),
                        epochs=ocp.args.StandardSave(packed),
                        about=ocp.args.JsonSave({**about, "sha256": _seal(about)}),
                    ),
                )
        self._stop_if_terminated(epoch, asked)

    def _stop_if_terminated(self, epoch: int, asked: int) -> None:
        if not self.terminated or epoch == asked:  # then only the record is left to write
            return
        with self._saving():
            self.manager.wait_until_finished()
        raise TerminatedError(
            f"terminated after epoch {epoch} of {asked}; the same command goes on from there"
        )

    @contextlib.contextmanager
    def _saving(self) -> Iterator[None]:
        """Orbax's errors as one line."""
        try:
            yield
        except OSError:
            raise
        except Exception as error:
            if code := OS_ERROR.search(str(error)):
                number = int(code[1])
                raise OSError(number, os.strerror(number), self.directory) from error
            what = " ".join(str(error).split())[:REPORTED]
            raise DataError(
                f"cannot save in {self.directory}: {what}; mend it, and the same command goes on"
            ) from error

    def discard(self) -> None:
        """Removes all checkpoints: the record is written."""
        with self._saving():
            self.manager.wait_until_finished()
        checkpoint_directory.remove(self.path)


@functools.cache
def _hush_orbax() -> None:
    """Silences what Orbax says of damaged files; `Checkpoints` says it in one line.

    These are logs, and tracebacks of the reads that Orbax gave up when another failed: of their
    coroutines, and of TensorStore when it comes back to an event loop that is closed by then.
    """
    for name in ("absl", "asyncio"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    before = sys.unraisablehook

    def hook(unraisable) -> None:
        code = getattr(unraisable.object, "cr_code", None)
        given_up = code and "orbax" in code.co_filename
        if not given_up and str(unraisable.exc_value) != "Event loop is closed":
            before(unraisable)

    sys.unraisablehook = hook


def _word(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def _digest(*parts) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()


def _arrays_digest(state: State, epochs: Any) -> str:
    arrays = (np.ascontiguousarray(leaf) for leaf in jax.tree.leaves((state, epochs)))
    return _digest(*arrays)


def _seal(about: dict[str, Any]) -> str:
    content = {name: value for name, value in about.items() if name != "sha256"}
    return _digest(json.dumps(content, sort_keys=True).encode())


def _pack(finished: list[EpochResult]) -> np.ndarray:
    """The epochs as the bytes of an .npz: Orbax takes no arrays without elements, this does."""
    columns = {"seconds": [epoch.seconds for epoch in finished]}
    for part in ("steps", "test"):
        metrics = [getattr(epoch, part) for epoch in finished]
        for name in metrics[0]._fields:
            columns[f"{part}.{name}"] = [getattr(metric, name) for metric in metrics]
    archive = record.archive({name: np.stack(values) for name, values in columns.items()})
    return np.frombuffer(archive, np.uint8)


def _unpack(packed: np.ndarray, state: State) -> list[EpochResult]:
    """The epochs of `_pack`; the parameters are those after the last."""
    with np.load(io.BytesIO(packed.tobytes())) as archive:
        columns = dict(archive)

    def metrics(kind, part: str, epoch: int):
        return kind(*(columns[f"{part}.{name}"][epoch] for name in kind._fields))

    return [
        EpochResult(
            metrics(StepMetrics, "steps", i), metrics(Evaluation, "test", i), state.params, seconds
        )
        for i, seconds in enumerate(columns["seconds"].tolist())
    ]

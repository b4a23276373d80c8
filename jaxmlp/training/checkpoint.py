"""Save and resume: a run's last two finished epochs, each whole or not believed.

The order of the batches needs no place: seed and epoch say where it stands. A resumed run's record
is the uninterrupted one's, bit for bit but for times. Digests say whether a checkpoint is whole:
Orbax does not see a flipped bit in an array.
"""

import contextlib
import hashlib
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import jax
import numpy as np

from jaxmlp.data.dataset import Dataset
from jaxmlp.device.precision import precision
from jaxmlp.errors import DataError, TerminatedError
from jaxmlp.experiment import Experiment
from jaxmlp.record import run_record as record
from jaxmlp.record.metrics import EpochResult, Evaluation, StepMetrics
from jaxmlp.training import checkpoint_storage
from jaxmlp.training.checkpoint_storage import Items
from jaxmlp.training.run import Run
from jaxmlp.training.step import State, abstract_state


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
    with precision(experiment):
        state = abstract_state(experiment, dataset.widths(experiment.hidden), 1)
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))


class Checkpoints:
    """The checkpoints of one run; as a context, it keeps their directory for this process.

    Args:
        directory: a path, or a bucket's as Orbax takes it (gs://, s3://).
        every: epochs from one checkpoint to the next.
        run: `provenance`'s.
        warn: takes a line of text.
        size: bytes of a state, to see at the start whether the disk takes as many as there will be.
        stop_asked: whether this process is to stop; in several processes, where JAX itself notes
            SIGTERM and tells the others, it is not needed.

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
        stop_asked: Callable[[], bool] = lambda: False,
    ) -> None:
        self.directory, self.every, self.run = directory, every, run
        self.warn, self.stop_asked = warn, stop_asked
        with contextlib.ExitStack() as opened:
            self.storage = opened.enter_context(checkpoint_storage.opened(directory, size))
            self.intact = [epoch for epoch in self.storage.epochs() if self._is_this_runs(epoch)]
            self._fail_without_intact()
            self.opened = opened.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind, error, traceback) -> None:
        self.opened.close()

    def _is_this_runs(self, epoch: int) -> bool:
        """Whether the checkpoint says so; False, with a warning, if it is damaged.

        Raises:
            ValueError: it is intact and another run's.
        """
        about = self.storage.about(epoch)
        if not _is_sealed(about):
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
        if self.storage.epochs() and not self.intact:
            raise DataError(
                f"no checkpoint in {self.directory} is intact; remove it to train from the start"
            )

    def resume(self, run: Run) -> list[EpochResult]:
        """What the finished epochs left; the run goes on after them.

        Raises:
            DataError: there are checkpoints, and none is intact.
            TerminatedError: this process was asked to stop.
        """
        finished: list[EpochResult] = []
        for epoch in list(self.intact):
            with precision(run.experiment):
                restored = self._restore(epoch, run.state)
            if restored:
                state, finished = restored
                run.resume(state, epoch)
                break
            self._warn_of(epoch)
            self.intact.remove(epoch)
        self._fail_without_intact()
        for epoch in set(self.storage.epochs()) - set(self.intact):
            self.storage.remove(epoch)  # or the run could not save that epoch when it comes by
        if self.stop_asked():
            self._stop(len(finished), run.experiment.epochs)
        return finished

    def _restore(self, epoch: int, like: State) -> tuple[State, list[EpochResult]] | None:
        """State and epochs of a checkpoint; None if it is damaged."""
        items = self.storage.read(epoch, like)
        if items is None or items.about.get("arrays") != _arrays_digest(items.state, items.epochs):
            return None
        finished = _unpack(np.asarray(items.epochs), items.state)
        # Under another name it is as whole, and of another epoch.
        return (items.state, finished) if len(finished) == epoch else None

    def save(self, run: Run, finished: list[EpochResult], last: bool) -> None:
        """Saves, in the background, if it is time to.

        Args:
            last: no other epoch will follow in this process.

        Raises:
            DataError, OSError: this or the checkpoint before could not be saved.
            TerminatedError: this process was asked to stop; the state is saved.
        """
        epoch, asked = len(finished), run.experiment.epochs
        stopping = self.storage.is_preempted(epoch) or self.stop_asked()
        if last or stopping or epoch == asked or epoch % self.every == 0:
            packed = _pack(finished)
            about = {"run": self.run, "arrays": _arrays_digest(run.state, packed)}
            sealed = {**about, "sha256": _seal(about)}
            self.storage.write(epoch, Items(run.state, packed, sealed))
            stopping = stopping or self.stop_asked()
        if stopping:
            self._stop(epoch, asked)

    def _stop(self, epoch: int, asked: int) -> None:
        """Ends a run whose state is saved, unless only the record is left to write.

        Raises:
            TerminatedError: it is not.
        """
        if epoch == asked:
            return
        self.storage.wait()
        raise TerminatedError(
            f"terminated after epoch {epoch} of {asked}; the same command goes on from there"
        )

    def discard(self) -> None:
        """Removes all checkpoints: the record is written.

        Raises:
            DataError, OSError: the disk cannot be written.
        """
        self.storage.remove_all()


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


def _is_sealed(about: Any) -> bool:
    """Whether this is, bit for bit, what a checkpoint was said to be about when it was written."""
    if not isinstance(about, dict) or not isinstance(about.get("run"), dict):
        return False
    return about.get("sha256") == _seal(about)


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

"""Result: one run's record, its steps and its final parameters, in memory or on disk."""

from __future__ import annotations

import datetime
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from jaxtyping import Float

from jaxmlp.experiment import Experiment
from jaxmlp.record import run_directory, run_record, saved_record


@dataclass(frozen=True, eq=False, repr=False)
class Result:
    """What a run leaves behind, as `jaxmlp run` writes it.

    record is result.json, of which run_record.py holds the schema; numbers of it that are not
    finite are floats after training, and "NaN", "Infinity", "-Infinity" when loaded. steps holds
    loss (steps,), grad_norm (steps, layers) and dead (steps, hidden layers); params holds
    layer1.kernel (fan_in, fan_out), layer1.bias (fan_out,), layer2.kernel, ...
    """

    record: dict[str, Any]
    steps: dict[str, Float[np.ndarray, "steps ..."]]
    params: dict[str, Float[np.ndarray, "..."]]

    @property
    def outcome(self) -> str:
        """One of trained, stalled, dead, nonfinite."""
        return self.record["outcome"]

    @property
    def verdict(self) -> str:
        """The outcome in a sentence or two."""
        return self.record["verdict"]

    def figures(self) -> dict[str, bytes]:
        """The run's figures as PNG bytes, by file name."""
        from jaxmlp.record import run_figures  # only here, for it loads matplotlib

        return run_figures.figures(self.record, self.steps, self.params)

    def files(self) -> dict[str, bytes]:
        """Every file of the run's directory with its content, but for SHA256SUMS."""
        return {
            "steps.npz": run_record.archive(self.steps),
            "params.npz": run_record.archive(self.params),
            **self.figures(),
            "result.json": run_record.encode(self.record).encode(),
        }

    def save(self, directory: str | Path, overwrite: bool = False) -> None:
        """Writes the run's directory, whole or not at all; nothing else in it is touched.

        Args:
            overwrite: replace another run's record, or a finished one of this run.

        Raises:
            ValueError: something stands there that must not be replaced, or another run is at work.
            OSError: the disk is full or cannot be written; what stood there still stands.
        """
        experiment = Experiment.from_json(self.record["experiment"])
        framework, sha256 = self.record["framework"], self.record["data"]["sha256"]

        def differing(there: dict[str, Any]) -> list[str]:
            return run_record.differing(there, framework, experiment, sha256)

        out, size = Path(directory), sum(array.nbytes for array in self.params.values())
        with run_directory.claimed(out, overwrite, size, differing):
            run_directory.save(out, self.files())

    @classmethod
    def load(cls, directory: str | Path) -> Self:
        """The run that a directory holds, every byte verified.

        Raises:
            ValueError: it is no record of a run, damaged, or of another schema; one line.
        """
        return cls(*saved_record.load(Path(directory)))

    def show(self) -> None:
        """Displays the verdict and the figures in a notebook; elsewhere prints the verdict."""
        print(self.verdict)
        if not _in_notebook():
            print("figures: result.save(DIRECTORY) writes them as PNG")
            return
        from IPython.display import Image, display  # pyright: ignore[reportMissingImports]

        for content in self.figures().values():
            display(Image(content))

    def __repr__(self) -> str:
        record = self.record
        epochs = f"{len(record['epochs'])} of {record['experiment']['epochs']} epochs"
        return (
            f"Result({record['case']} on {record['data']['name']}, {record['framework']}, "
            f"{epochs}: {self.outcome})"
        )


def _in_notebook() -> bool:
    """Whether this is a Jupyter kernel, which shows images; one has loaded IPython long since."""
    ipython = sys.modules.get("IPython")
    return ipython is not None and hasattr(ipython.get_ipython(), "kernel")


def now() -> str:
    """The time as a record says it: UTC, to the second."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def conclude(
    run: Any, results: Sequence[Any], rows: list[dict[str, Any]], *, started: str, **known: Any
) -> Result:
    """The result of a run on either side, from its finished epochs.

    Args:
        run: with experiment, setup_seconds, compile_seconds, train_size and `steps`.
        results: of the epochs, each with params and seconds; at least one.
        rows: the record's, one for each.
        known: what else `run_record.build` takes.
    """
    timings = run_record.timings(
        started,
        run.setup_seconds,
        run.compile_seconds,
        [result.seconds for result in results],
        run.train_size,
    )
    parts = run_record.build(
        experiment=run.experiment,
        rows=rows,
        steps=run.steps(results),
        params=results[-1].params,
        timings=timings,
        **known,
    )
    return Result(*parts)

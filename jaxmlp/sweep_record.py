"""What a sweep leaves behind, and how it goes on after a crash.

    sweep.json      what was asked: schema, `finished`, identity (a hash of every run and the data),
                    experiment (the settings of all), axes, seeds, forecast, data, environments
                    (all that had a part in it), timings
    runs.parquet    a row per run, columns below
    curves.parquet  a row per run and epoch: run, and the entries of a record's `epochs`
    *.png           figures, made by scripts/sweep_figures.py from runs.parquet
    parts/          finished chunks, until all are: no longer there once `finished` is true

runs.parquet: run (from 0), experiment (sha256), seed, input_scale; init_scale_1, learning_rate_1,
... per layer, as asked; canonical_learning_rate (R), canonical_init_scale_1 (κ1), ...,
canonical_decay_1 (δ1), ... (rescaling.py; null with a learning rate of 0); sharpness,
sharpness_limit, foretold_diverges, foretold_fails (probabilities) and foretold_course (forecast.py;
null without forecasts); outcome, spike, first_nonfinite_step (verdict.py); course (the one it took:
stable, recovers, fails); train_loss, train_accuracy, test_loss, test_accuracy of the last epoch;
best_test_accuracy and best_epoch (the first that reached it); dead_1, ... per hidden layer.
"""

import fcntl
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from jaxmlp import explanation, forecast, verdict
from jaxmlp.data import Dataset
from jaxmlp.experiment import PER_TENSOR, Experiment
from jaxmlp.train import EpochResult, row, steps_arrays

SCHEMA = 2
NAMES = ("sweep.json", "runs.parquet", "curves.parquet", "heat.png", "plane.png", "foretold.png")
INTEGERS = ("run", "epoch", "best_epoch", "first_nonfinite_step")
TEXTS = ("experiment", "foretold_course", "outcome", "course")


def identity(
    settings: Iterable[Experiment], seeds: Sequence[int], dataset: Dataset, forecast: bool
) -> str:
    """A fingerprint of every run and the data: equal sweeps, equal fingerprints."""
    digest = hashlib.sha256(dataset.sha256.encode())
    for experiment in settings:
        digest.update(experiment.sha256.encode())
    digest.update(json.dumps([list(seeds), forecast]).encode())
    return digest.hexdigest()


# ---- rows


def asked(experiment: Experiment) -> dict[str, float]:
    """The traced settings by column, per layer from 1."""
    found = {"input_scale": experiment.input_scale}
    for prefix in ("", "bias_")[: len(experiment.tensors)]:
        for name in PER_TENSOR:
            if getattr(experiment, name) is not None:
                values = experiment.per_layer(prefix + name)
                found |= {f"{prefix}{name}_{i + 1}": own for i, own in enumerate(values)}
    return found


def canonical(experiment: Experiment) -> dict[str, Any]:
    """R, κ and δ by column."""
    form = explanation.canonical_section(experiment)
    layers = range(experiment.layers)
    return {
        "canonical_learning_rate": form and form["learning_rate"],
        **{f"canonical_init_scale_{i + 1}": form and form["init_scale"][i] for i in layers},
        **{f"canonical_decay_{i + 1}": form and form["decay"][i] for i in layers},
    }


def run_row(
    run: int,
    experiment: Experiment,
    epochs: list[EpochResult],
    finite: bool,
    foretold: dict[str, Any] | None,
    dataset: Dataset,
) -> dict[str, Any]:
    """A run's row of runs.parquet, and beside it `epochs`, its rows of curves.parquet.

    Args:
        finite: whether every final parameter is.
        foretold: forecast.Forecast.to_json().
    """
    rows = [
        row(experiment, number + 1, result, len(dataset.test_labels))
        for number, result in enumerate(epochs)
    ]
    steps = steps_arrays(experiment, [result.steps for result in epochs])
    ended, last = verdict.outcome(dataset.classes, steps, rows, finite), rows[-1]
    went = forecast.course(experiment, epochs, len(dataset.test_labels), dataset.classes)
    best = max(rows, key=lambda one: (one["test_accuracy"], -one["epoch"]))
    foretold = foretold or {}
    return {
        "run": run,
        "experiment": experiment.sha256,
        "seed": experiment.seed,
        **asked(experiment),
        **canonical(experiment),
        "sharpness": foretold.get("sharpness"),
        "sharpness_limit": foretold.get("limit"),
        **{f"foretold_{name}": foretold.get(name) for name in ("diverges", "fails", "course")},
        **{name: ended[name] for name in ("outcome", "spike", "first_nonfinite_step")},
        "course": went["course"],
        **{name: last[name] for name in last if name not in ("epoch", "dead", "silent")},
        "best_test_accuracy": best["test_accuracy"],
        "best_epoch": best["epoch"],
        **{f"dead_{i + 1}": dead for i, dead in enumerate(last["dead"])},
        "epochs": rows,
    }


def table(rows: list[dict[str, Any]]) -> pa.Table:
    """Rows with the same columns, each with its type even where all values are missing."""

    def kind(name: str, value: Any) -> pa.DataType:
        if name == "seed":
            return pa.uint64()
        if name in INTEGERS:
            return pa.int64()
        if name in TEXTS:
            return pa.string()
        if name in ("dead", "silent"):
            return pa.list_(pa.float64())
        if name == "epochs":
            return pa.list_(pa.struct([(key, kind(key, own)) for key, own in value[0].items()]))
        return pa.float64()

    schema = pa.schema([(name, kind(name, value)) for name, value in rows[0].items()])
    return pa.Table.from_pylist(rows, schema=schema)


# ---- the directory


class Directory:
    """A sweep's directory; what is in it is whole at any moment. Looks, and touches nothing.

    Args:
        plan: what sweep.json is to say.
        fingerprint: of the run at a position of the table (Experiment.sha256).

    Raises:
        ValueError: something else stands there, or a sweep that was not to be touched.
    """

    def __init__(
        self,
        out: Path,
        plan: dict[str, Any],
        fingerprint: Callable[[int], str],
        resume: bool,
        overwrite: bool,
    ) -> None:
        self.out, self.plan, self.parts = out, plan, out / "parts"
        self.fingerprint, self.overwrite = fingerprint, overwrite
        self.finished = False
        if out.exists() and not out.is_dir():
            raise ValueError(f"{out} is a file; --out needs a directory's name")
        if out.is_dir() and any(out.iterdir()) and not self._is_ours():
            raise ValueError(f"{out} holds files that are not a sweep's; choose another --out")
        if overwrite or not (out / "sweep.json").exists():
            return
        there = read(out)
        if there["identity"] != plan["identity"]:
            raise ValueError(
                f"{out} holds another sweep ({_difference(there, plan)}); --overwrite replaces "
                "it, --out DIR keeps both"
            )
        if not resume:
            state = "a finished" if there["finished"] else "an unfinished"
            keeps = "--out DIR keeps both" if there["finished"] else "--resume continues it"
            raise ValueError(f"{out} holds {state} sweep; --overwrite replaces it, {keeps}")
        self.finished = there["finished"]
        known = there.get("environments", [])
        plan["environments"] = known + [one for one in plan["environments"] if one not in known]

    def _is_ours(self) -> bool:
        """Whether a sweep stands here, or was just about to."""
        if (self.out / "sweep.json").is_file():
            return True
        names = {path.name for path in self.out.iterdir()}
        empty = not self.parts.exists() or not any(self.parts.iterdir())
        return names <= {"parts", "sweep.json.partial"} and empty

    def begin(self) -> None:
        """Makes the directory ready for parts, and takes it for this process.

        Raises:
            ValueError: another process is at work in it.
            OSError: it cannot be written.
        """
        self.out.mkdir(parents=True, exist_ok=True)
        self._lock()
        if self.overwrite:
            for name in NAMES:
                (self.out / name).unlink(missing_ok=True)
            self._remove_parts()
        for leftover in [*self.out.glob("*.partial"), *self.parts.glob("*.partial")]:
            leftover.unlink()
        if self.finished:
            self._remove_parts()
        else:
            self._write_plan(False)
            self.parts.mkdir(exist_ok=True)

    def _lock(self) -> None:
        """A lock that ends with the process; where the file system has none, there is none."""
        self._locked = os.open(self.out, os.O_RDONLY)
        try:
            fcntl.flock(self._locked, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(f"another process is at work in {self.out}; wait for it") from None
        except OSError:
            return

    def close(self) -> None:
        """Gives the directory up."""
        os.close(self._locked)

    def done(self) -> set[int]:
        """The runs of finished chunks; a part that is damaged or another sweep's is dropped."""
        found: set[int] = set()
        for path in self._own_parts():
            try:
                rows = pq.read_table(path, columns=["run", "experiment"]).to_pylist()
                if any(one["experiment"] != self.fingerprint(one["run"]) for one in rows):
                    raise ValueError
            except (pa.ArrowException, OSError, ValueError, IndexError):
                path.unlink()
            else:
                found |= {one["run"] for one in rows}
        return found

    def add(self, rows: list[dict[str, Any]]) -> None:
        """A finished chunk."""
        path = self.parts / f"{rows[0]['run']:08}-{rows[-1]['run']:08}.parquet"
        write(path, lambda partial: pq.write_table(table(rows), partial))

    def finish(self, runs: pa.Table, curves: pa.Table, timings: dict[str, Any]) -> None:
        """Puts the tables of all runs in the place of the parts."""
        write(self.out / "runs.parquet", lambda partial: pq.write_table(runs, partial))
        write(self.out / "curves.parquet", lambda partial: pq.write_table(curves, partial))
        self.plan |= {"timings": timings}
        self._write_plan(True)
        self._remove_parts()

    def tables(self) -> tuple[pa.Table, pa.Table]:
        """runs.parquet and curves.parquet out of the parts, in the order of the runs."""
        rows: dict[int, dict[str, Any]] = {}
        for path in self._own_parts():
            for one in pq.read_table(path).to_pylist():
                rows.setdefault(one["run"], one)
        ordered = [rows[run] for run in sorted(rows)]
        curves = [{"run": one["run"], **epoch} for one in ordered for epoch in one["epochs"]]
        for one in ordered:
            del one["epochs"]
        return table(ordered), table(curves)

    def _own_parts(self) -> list[Path]:
        return sorted(self.parts.glob("[0-9]*-[0-9]*.parquet"))

    def _remove_parts(self) -> None:
        if self.parts.exists():
            for path in self._own_parts():
                path.unlink()
            self.parts.rmdir()

    def _write_plan(self, finished: bool) -> None:
        text = json.dumps(self.plan | {"finished": finished}, indent=2, allow_nan=False) + "\n"
        write(self.out / "sweep.json", lambda partial: partial.write_text(text))


def write(path: Path, content: Any) -> None:
    """A file that appears whole or not at all.

    Args:
        content: writes it to the path it is given.

    Raises:
        OSError: the disk is full or cannot be written.
    """
    partial = path.with_name(path.name + ".partial")
    try:
        content(partial)
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:  # Arrow's names no file
        raise OSError(error.errno, error.errno and os.strerror(error.errno), str(path)) from error
    finally:
        partial.unlink(missing_ok=True)


def read(out: Path) -> dict[str, Any]:
    """A sweep's sweep.json.

    Raises:
        ValueError: it is none, or of another schema.
    """
    try:
        found = json.loads((out / "sweep.json").read_bytes())
        if found["schema"] != SCHEMA:
            raise ValueError(f"{out} has schema {found['schema']}; this reads {SCHEMA}")
        return {**found, "identity": str(found["identity"]), "finished": bool(found["finished"])}
    except (OSError, KeyError, TypeError, json.JSONDecodeError) as error:
        raise ValueError(f"{out} is no sweep: {error}") from error


def load(out: Path) -> tuple[dict[str, Any], pa.Table, pa.Table]:
    """A finished sweep: sweep.json, runs, curves.

    Raises:
        ValueError: the directory is no finished sweep.
    """
    found = read(out)
    if not found["finished"]:
        raise ValueError(f"{out} holds an unfinished sweep; --resume continues it")
    try:
        return found, pq.read_table(out / "runs.parquet"), pq.read_table(out / "curves.parquet")
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{out} is damaged: {error}") from error


def _difference(there: dict[str, Any], plan: dict[str, Any]) -> str:
    for name in ("experiment", "axes", "seeds", "data", "forecast"):
        mine, theirs = plan[name], there.get(name)
        if mine != theirs:
            if isinstance(mine, dict) and isinstance(theirs, dict):
                key = next((k for k in mine if mine[k] != theirs.get(k)), name)
                return f"its {key} is {theirs.get(key)}, asked is {mine.get(key)}"
            return f"its {name} are not those asked for"
    return "its runs are not those asked for"

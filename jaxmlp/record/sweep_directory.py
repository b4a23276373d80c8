"""A sweep's directory: whole at any moment, resumable, and careful with what is not the sweep's.

What it holds is written down in sweep_tables.py, how its files are read in sweep_files.py.
"""

import contextlib
import io
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from jaxmlp import atomic
from jaxmlp.experiment import Experiment
from jaxmlp.record import sealed, sweep_files, sweep_tables
from jaxmlp.record.sums import SUMS, Sums, digest
from jaxmlp.record.sweep_files import CURVES, FIGURES, NAMES, PART, PLAN, RUNS, TABLES

# In parts and tables together; measured: 1,300 and 95 with 16 runs a part, 12,000 with one.
RUN_BYTES, EPOCH_BYTES = 2_000, 120
RESERVE = 4 << 20  # bytes for figures and sweep.json; measured: under 1 MB


class Directory:
    """A sweep's directory. Looks, and touches nothing before `begin`.

    Args:
        plan: what sweep.json is to say.
        runs: of the whole sweep.

    Raises:
        ValueError: something else stands there, or a sweep that was not to be touched.
        OSError: there is no room for the sweep.
    """

    def __init__(
        self, out: Path, plan: dict[str, Any], runs: int, resume: bool, overwrite: bool
    ) -> None:
        self.out, self.plan, self.runs, self.parts = out, plan, runs, out / "parts"
        self.experiment = Experiment.from_json(plan["experiment"])
        self.columns = sweep_tables.columns(self.experiment)
        self.sums = Sums(out, NAMES, plan["identity"])
        self.finished, self.replaced = False, None
        self._kept = contextlib.ExitStack()  # from `begin` to `close`
        check_place(out)
        there = self._standing()
        if there and not overwrite:
            self._go_on(there, resume)
        elif there:
            self.replaced = there["identity"]
        if not self.finished:
            self._check_names()
            each = RUN_BYTES + EPOCH_BYTES * self.experiment.epochs
            atomic.reserve(out, RESERVE + runs * each)

    def _standing(self) -> dict[str, Any] | None:
        """The sweep.json that stands there.

        Raises:
            ValueError: it, or anything else that stands there, is not a sweep's.
        """
        if not self.out.is_dir():
            return None
        if os.path.lexists(self.out / PLAN):
            if os.path.lexists(self.parts) and not self.parts.is_dir():
                raise ValueError(f"{self.parts} is no directory; move it away")
            return sweep_files.read(self.out)
        names = {path.name for path in self.out.iterdir()}
        names.discard(atomic.partial(self.out / PLAN, self.plan["identity"]).name)
        if names - {"parts"} or (names and (not self.parts.is_dir() or any(self.parts.iterdir()))):
            raise ValueError(f"{self.out} holds files that are not a sweep's; choose another --out")
        return None

    def _go_on(self, there: dict[str, Any], resume: bool) -> None:
        """Takes up the sweep that stands there.

        Raises:
            ValueError: it is another, or was not to be touched, or is damaged.
        """
        if there["identity"] != self.plan["identity"]:
            raise ValueError(
                f"{self.out} holds another sweep ({_difference(there, self.plan)}); --overwrite "
                "replaces it, --out DIR keeps both"
            )
        if not resume:
            state = "a finished" if there["finished"] else "an unfinished"
            keeps = "--out DIR keeps both" if there["finished"] else "--resume continues it"
            raise ValueError(f"{self.out} holds {state} sweep; --overwrite replaces it, {keeps}")
        if there["finished"]:
            sweep_files.load(self.out)
        self.finished = there["finished"]
        before = there["environments"]
        new = [each for each in self.plan["environments"] if each not in before]
        self.plan["environments"] = before + new

    def _check_names(self) -> None:
        """Sees that no file stands in the way of the sweep's.

        Raises:
            ValueError: one does.
        """
        self.sums.check([*TABLES, *FIGURES])
        if set(self.sums.read()) == {PLAN}:  # the sweep's own always lists its tables
            raise ValueError(f"{self.out / SUMS} is not the sweep's; move it away")

    def begin(self) -> None:
        """Makes the directory ready for parts, and takes it for this process.

        Raises:
            ValueError: another process is at work in it.
            OSError: it cannot be written.
        """
        refusal = f"another process is at work in {self.out}; wait for it"
        self._kept.enter_context(atomic.locked(self.out, refusal))
        try:
            self._clear()
            if not self.finished:
                self._write_plan(False)
                self.parts.mkdir(exist_ok=True)
        except BaseException:
            self.close()
            raise

    def _clear(self) -> None:
        """Removes what is replaced, and what a process that was killed left of this sweep."""
        if self.replaced:
            self._remove_parts(self.replaced)
            self._remove_leftovers(self.replaced)
            self.sums.remove([*TABLES, *FIGURES])
            (self.out / SUMS).unlink(missing_ok=True)
        self._remove_leftovers(self.plan["identity"])
        if self.finished:
            self._remove_parts(self.plan["identity"])

    def close(self) -> None:
        """Gives the directory up."""
        self._kept.close()

    def done(self) -> set[int]:
        """The runs of finished chunks."""
        return set(self._rows())

    def damaged(self) -> list[Path]:
        """What has a part's name and is not this sweep's part, as it was written."""
        intact = self._intact_parts(self.plan["identity"])
        return [path for path in self._files() if PART.fullmatch(path.name) and path not in intact]

    def add(self, rows: list[dict[str, Any]]) -> None:
        """A finished chunk."""
        content = sweep_files.parquet(pa.Table.from_pylist(rows, schema=self.columns))
        ends = f"{rows[0]['run']:08}-{rows[-1]['run']:08}"
        name = f"{ends}.{sweep_files.part_digest(self.plan['identity'], ends, content)}.parquet"
        atomic.replace(self.parts / name, content, self.plan["identity"])

    def tables(self) -> tuple[pa.Table, pa.Table]:
        """The runs and the curves out of the parts, in the order of the runs.

        Raises:
            ValueError: a part was damaged meanwhile.
        """
        rows = self._rows()
        if missing := self.runs - len(rows):
            raise ValueError(
                f"{self.parts} lacks {missing} of {self.runs} runs: parts were damaged meanwhile; "
                "--resume trains these again"
            )
        return sweep_tables.tables([rows[run] for run in sorted(rows)], self.experiment)

    def finish(self, runs: pa.Table, curves: pa.Table, timings: dict[str, Any]) -> None:
        """Puts the tables of all runs in the place of the parts."""
        self.plan |= {"timings": timings}
        text = self._plan_text(True)
        files = {RUNS: sweep_files.parquet(runs), CURVES: sweep_files.parquet(curves)}
        self.sums.put(files, besides={PLAN: digest(text)})
        atomic.replace(self.out / PLAN, text, self.plan["identity"])
        self._remove_parts(self.plan["identity"])

    def strange(self) -> int:
        """How many files in parts/ are not this sweep's."""
        return len(set(self._files()) - set(self._intact_parts(self.plan["identity"])))

    def _files(self) -> list[Path]:
        return sorted(self.parts.iterdir()) if self.parts.is_dir() else []

    def _intact_parts(self, identity: str) -> list[Path]:
        return [path for path in self._files() if sweep_files.part(path, identity) is not None]

    def _rows(self) -> dict[int, dict[str, Any]]:
        """All parts' rows, by run."""
        rows: dict[int, dict[str, Any]] = {}
        for path in self._files():
            content = sweep_files.part(path, self.plan["identity"])
            if content is None:
                continue
            table = pq.read_table(io.BytesIO(content))
            if table.schema.equals(self.columns):  # else another version's
                rows |= {row["run"]: row for row in table.to_pylist()}
        return rows

    def _remove_parts(self, identity: str) -> None:
        """Removes the sweep's own parts, and their directory if nothing else is in it."""
        for path in self._intact_parts(identity):
            path.unlink()
        if self.parts.is_dir() and not any(self.parts.iterdir()):
            self.parts.rmdir()

    def _remove_leftovers(self, identity: str) -> None:
        """Removes what this very sweep was writing when it was killed."""
        for name in (PLAN, *TABLES, *FIGURES, SUMS):
            atomic.partial(self.out / name, identity).unlink(missing_ok=True)
        for path in self._files():
            if path.name.endswith(f".parquet.{identity[:16]}.partial"):
                path.unlink()

    def _plan_text(self, finished: bool) -> bytes:
        return sealed.seal(self.plan | {"finished": finished}, indent=2)

    def _write_plan(self, finished: bool) -> None:
        atomic.replace(self.out / PLAN, self._plan_text(finished), self.plan["identity"])


def _difference(there: dict[str, Any], plan: dict[str, Any]) -> str:
    for name in ("experiment", "axes", "seeds", "data", "forecast"):
        mine, theirs = plan[name], there.get(name)
        if mine != theirs:
            if isinstance(mine, dict) and isinstance(theirs, dict):
                key = next((k for k in mine if mine[k] != theirs.get(k)), name)
                return f"its {key} is {theirs.get(key)}, asked is {mine.get(key)}"
            return f"its {name} are not those asked for"
    return "its runs are not those asked for"


# ---- before the work


def check_place(out: Path) -> None:
    """Sees whether a directory of this name can be.

    Raises:
        ValueError: it cannot.
    """
    if os.path.lexists(out):
        atomic.check_kind(out)
    longest = out / "parts" / f".{'0' * 17}.{'0' * 32}.parquet.{'0' * 16}.partial"
    try:
        longest.lstat()
    except FileNotFoundError:
        return
    except (OSError, ValueError) as error:  # a name too long, a null byte, a file on the way
        why = getattr(error, "strerror", None) or error
        raise ValueError(f"--out {out} cannot be a directory ({why}); choose another") from None

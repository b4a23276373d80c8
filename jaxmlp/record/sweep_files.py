"""The files of a sweep, as they are believed: only as they were written.

What they hold is written down in sweep_tables.py. sweep.json carries its seal, a part's name the
digest of its content, and SHA256SUMS lists the rest.
"""

import io
import os
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from jaxmlp.experiment import Experiment
from jaxmlp.record import sealed, sweep_tables
from jaxmlp.record.sums import SUMS, Sums, digest

PLAN, RUNS, CURVES = "sweep.json", "runs.parquet", "curves.parquet"
TABLES = (RUNS, CURVES)
FIGURES = ("heat.png", "plane.png", "foretold.png")
NAMES = "|".join(map(re.escape, (PLAN, *TABLES, *FIGURES)))
PART = re.compile(r"(\d{8,})-(\d{8,})\.([0-9a-f]{32})\.parquet")
KINDS = {
    "schema": int,
    "identity": str,
    "finished": bool,
    "experiment": dict,
    "axes": list,
    "seeds": list,
    "data": dict,
    "environments": list,
}


def parquet(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink)
    return sink.getvalue()


# ---- parts


def part_digest(identity: str, ends: str, content: bytes) -> str:
    return digest(f"{identity} {ends}\n".encode() + content)[:32]


def part(path: Path, identity: str) -> bytes | None:
    """A part's content, if it is this sweep's part of these runs, as it was written."""
    match = PART.fullmatch(path.name)
    if not match or not path.is_file():
        return None
    content = path.read_bytes()
    digest_now = part_digest(identity, f"{match[1]}-{match[2]}", content)
    return content if digest_now == match[3] else None


# ---- reading


def read(out: Path) -> dict[str, Any]:
    """A sweep's sweep.json, as it was written.

    Raises:
        ValueError: it is none, or damaged, or of another schema.
    """
    path = out / PLAN
    try:
        if not path.is_file():
            raise ValueError(f"there is no {PLAN}")
        text = path.read_bytes()
        schema = sealed.parse(text).get("schema")
        if schema != sweep_tables.SCHEMA and isinstance(schema, int):
            raise ValueError(f"it has schema {schema}; this reads {sweep_tables.SCHEMA}")
        plan = sealed.unseal(text)
        for name, kind in KINDS.items():
            if not isinstance(plan.get(name), kind):
                raise ValueError(f"its {name} is missing")
        return plan
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise ValueError(
            f"{out} is no sweep, or {PLAN} is damaged ({why}); choose another directory"
        ) from None


def _check_sums(out: Path, identity: str) -> None:
    """Sees that a finished sweep's files are as they were written.

    Raises:
        ValueError: one is not.
    """
    anew = f"choose another --out, or delete {out} and train again"
    if not (out / SUMS).is_file():
        raise ValueError(f"{out} is damaged: there is no {SUMS}; {anew}")
    sums = Sums(out, NAMES, identity)
    listed = sums.read()
    drawn = [name for name in FIGURES if name in listed and os.path.lexists(out / name)]
    for name in sums.damaged([PLAN, *TABLES, *drawn]):
        remedy = "move it away, and it is drawn again" if name in FIGURES else anew
        raise ValueError(f"{out / name} is not as the sweep wrote it ({SUMS}); {remedy}")


def load(out: Path) -> tuple[dict[str, Any], pa.Table, pa.Table]:
    """A finished sweep as it was written: sweep.json, runs, curves.

    Raises:
        ValueError: the directory is no finished sweep, or damaged.
    """
    plan = read(out)
    if not plan["finished"]:
        raise ValueError(f"{out} holds an unfinished sweep; --resume continues it")
    _check_sums(out, plan["identity"])
    try:
        runs, curves = (pq.read_table(out / name) for name in TABLES)
        columns = sweep_tables.columns(Experiment.from_json(plan["experiment"]))
        if not runs.schema.equals(columns.remove(len(columns) - 1)):
            raise ValueError(f"{RUNS} has other columns")
    except (pa.ArrowException, TypeError, ValueError) as error:  # and yet the checksums match
        raise ValueError(f"{out} was written by something else: {error}") from error
    return plan, runs, curves


def save_figures(out: Path, files: dict[str, bytes], identity: str) -> None:
    """Writes figures into a sweep's directory, or another, in the place of earlier ones.

    Raises:
        ValueError: something else stands there.
        OSError: the disk is full or cannot be written.
    """
    Sums(out, NAMES, identity).put(files)

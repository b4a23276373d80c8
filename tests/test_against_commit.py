"""scripts/against_commit.py: what may differ between two trees, and that nothing else may."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scripts_dir import load

against_commit = load("against_commit")

OLD = {
    "schema": 2,
    "framework": "jax",
    "epochs": [{"epoch": 1, "dead": [0.25]}],
    "outcome": {"outcome": "trained", "spike": 1.5, "dead": [0.25]},
    "timings": {"train_seconds": 3.0},
}
NEW = {
    "schema": 3,
    "framework": "jax",
    "epochs": [{"epoch": 1, "dead": [0.25]}],
    "outcome": "trained",
    "diagnostics": {"spike": 1.5, "dead": [0.25]},
    "timings": {"train_seconds": 4.0},
}
EXPLAINED = {"canonical": None, "identity": "the baseline"}
SWEEP = {"axes": [], "identity": "ab", "sha256": "cd", "data": {"sha256": "ef"}, "timings": {}}


def differ(old: Any, new: Any, name: str = "result.json") -> list[str]:
    """What is said of a file's two contents."""
    if name.endswith(".json"):
        old, new = json.dumps(old).encode(), json.dumps(new).encode()
    return against_commit.differences({name: old}, {name: new})


@pytest.mark.parametrize("old", [OLD, NEW])
@pytest.mark.parametrize("new", [OLD, NEW])
def test_records_are_the_same_but_for_times_and_mended_names(old, new):
    assert not differ(old, new)


@pytest.mark.parametrize(
    "change",
    [
        {"diagnostics": {"spike": 1.5000000000000002, "dead": [0.25]}},
        {"diagnostics": {"spike": 1.5, "dead": [0.25], "more": 1}},
        {"diagnostics": {"spike": 1.5}},
        {"outcome": "stalled"},
        {"schema": 2},
        {"schema": 4},
        {"framework": "torch"},
        {"epochs": [{"epoch": 1.0, "dead": [0.25]}]},
        {"epochs": [{"epoch": 1, "dead": [0.25, 0.25]}]},
        {"further": None},
    ],
)
def test_every_other_change_of_a_record_is_told(change):
    assert differ(OLD, NEW | change)


def test_zeros_of_different_sign_differ():
    assert differ({"spike": 0.0}, {"spike": -0.0})


def test_explanation_was_named_identity_in_explain_and_nowhere_else():
    mended = {"canonical": None, "explanation": "the baseline"}
    assert not differ(EXPLAINED, mended, "printed.json")
    assert differ(EXPLAINED, mended | {"explanation": "another run"}, "printed.json")
    assert differ({"identity": "ab"}, {"explanation": "ab"}, "printed.json")


def test_of_a_sweep_only_times_and_its_own_seal_may_differ():
    timed = SWEEP | {"sha256": "00", "timings": {"train_seconds": 1.0}}
    assert not differ(SWEEP, timed, "sweep.json")
    assert differ(SWEEP, timed | {"identity": "00"}, "sweep.json")
    assert differ(SWEEP, timed | {"data": {"sha256": "00"}}, "sweep.json")


def test_printed_lines_may_differ_in_seconds_only():
    old = b"epoch 1/2  loss 2.3  10,304 images/s  2 s left\nset-up 0.5 s, (12 s)\n"
    new = b"epoch 1/2  loss 2.3  9,817 images/s  3 min left\nset-up 1.25 s, (1.5 h)\n"
    assert not differ(old, new, "printed.txt")
    for change in ((b"loss 2.3", b"loss 2.4"), (b"1/2", b"1/3"), (b" left\n", b" left\n\n")):
        assert differ(old, new.replace(*change), "printed.txt")


def parquet(values: list[float | None], kind: pa.DataType) -> bytes:
    sink = io.BytesIO()
    whole = pa.array(range(len(values)))
    pq.write_table(pa.table({"run": whole, "loss": pa.array(values, kind)}), sink)
    return sink.getvalue()


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([1.0, float(np.nextafter(2.0, 3.0))], pa.float64()),
        ([1.0, None], pa.float64()),
        ([1.0], pa.float64()),
        ([1.0, 2.0], pa.float32()),
        ([-0.0, 2.0], pa.float64()),
    ],
)
def test_a_table_is_compared_in_every_bit_and_the_column_is_named(values, kind):
    old = parquet([1.0 if values[0] else 0.0, 2.0], pa.float64())
    assert not differ(old, old, "sweep/runs.parquet")
    told = differ(old, parquet(values, kind), "sweep/runs.parquet")
    assert any(line.startswith("+loss: ") for line in told)
    assert any(line.startswith("+run: ") for line in told) == (len(values) == 1)


def test_other_files_are_compared_in_every_byte():
    for name in ("steps.npz", "curves.png", "unknown"):
        assert not differ(b"one", b"one", name)
        assert differ(b"one", b"two", name)


def test_a_file_that_only_one_tree_leaves_is_told():
    assert against_commit.differences({"a": b"", "b": b""}, {"b": b"", "c": b""}) == [
        "a: only old",
        "c: only new",
    ]


def test_of_a_command_that_leaves_nothing_nothing_is_said_to_be_the_same(monkeypatch, capsys):
    for files, good in (({"printed.txt": b""}, False), ({"printed.txt": b"a line\n"}, True)):
        monkeypatch.setattr(against_commit, "run", lambda *_, files=files: files)
        assert against_commit.same("nothing", "explain.py", "", Path("top")) is good
        assert ("the same" in capsys.readouterr().out) is good

"""A sweep's directory: only what was written is believed, only what is the sweep's is touched."""

import json
import os
import random
import subprocess
import sys
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxmlp.commands import sweep as command
from jaxmlp.commands import sweep_figures
from jaxmlp.experiment import Experiment
from jaxmlp.record import sealed, sweep_directory, sweep_files
from jaxmlp.record.sweep_directory import Directory

ASKED = Experiment(hidden=(5,), batch_size=4, epochs=2)
IDENTITY = "0123456789abcdef" * 4
RUNS = 6
CHUNKS = ((0, 1), (2, 3), (4, 5))
FIGURES = {"heat.png": b"figure 1", "plane.png": b"figure 2"}


def plan(identity: str = IDENTITY) -> dict:
    return {
        "schema": 2,
        "identity": identity,
        "experiment": ASKED.to_json(),
        "axes": [],
        "way": {},
        "seeds": list(range(RUNS)),
        "forecast": False,
        "data": {"name": "tiny", "train_size": 24},
        "environments": [{"device": "cpu"}],
    }


def row(run: int) -> dict:
    from jaxmlp.record import sweep_tables

    numbers = dict.fromkeys(sweep_tables.columns(ASKED).names, run + 0.5)
    epochs = [
        {
            "epoch": epoch,
            "train_loss": 2.0,
            "train_accuracy": 0.25,
            "test_loss": run + epoch,
            "test_accuracy": 0.5,
            "dead": [0.5],
            "silent": [0.0],
        }
        for epoch in (1, 2)
    ]
    return {
        **numbers,
        "run": run,
        "experiment": "a" * 64,
        "seed": run,
        "foretold_course": None,
        "outcome": "dead",
        "first_nonfinite_step": None,
        "course": "fails",
        "best_epoch": 1,
        "epochs": epochs,
    }


def work(out: Path, resume: bool = True, overwrite: bool = False, identity: str = IDENTITY) -> None:
    """What the command does with a directory, but for the training."""
    directory = Directory(out, plan(identity), RUNS, resume, overwrite)
    directory.begin()
    try:
        if not directory.finished:
            done = directory.done()
            for chunk in CHUNKS:
                if not set(chunk) <= done:
                    directory.add([row(run) for run in chunk])
            directory.finish(*directory.tables(), {"train_seconds": random.random()})
        sweep_files.save_figures(out, FIGURES, identity)
    finally:
        directory.close()


def contents(top: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(top)): path.read_bytes() for path in top.rglob("*") if path.is_file()
    }


def half(out: Path, parts: int = 2) -> Directory:
    """An unfinished sweep."""
    directory = Directory(out, plan(), RUNS, True, False)
    directory.begin()
    for chunk in CHUNKS[:parts]:
        directory.add([row(run) for run in chunk])
    directory.close()
    return directory


@pytest.fixture(autouse=True, scope="module")
def quick_disk():
    """Flushing to the disk is not what is tested here."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(os, "fsync", lambda descriptor: None)
        yield


@pytest.fixture
def out(tmp_path) -> Path:
    return tmp_path / "s"


# ---- damage


def flips(content: bytes, count: int, seed: int = 0):
    """The content with one bit turned, again and again elsewhere."""
    draw = random.Random(seed)
    for _ in range(count):
        at = draw.randrange(8 * len(content))
        yield content[: at // 8] + bytes([content[at // 8] ^ 1 << at % 8]) + content[at // 8 + 1 :]


def test_of_1000_flipped_bits_in_a_part_none_is_believed(out):
    directory = half(out)
    part = sorted((out / "parts").iterdir())[0]
    for damaged in flips(part.read_bytes(), 1000):
        part.write_bytes(damaged)
        assert directory.done() == {2, 3}
        assert directory.damaged() == [part]


def test_a_part_under_another_name_is_not_believed(out):
    directory = half(out)
    first, second = sorted((out / "parts").iterdir())
    first.rename(first.with_name(first.name.replace("00000000-00000001", "00000004-00000005")))
    second.rename(second.with_suffix(".arrow"))
    assert directory.done() == set()


def test_a_part_of_the_same_runs_on_other_data_is_not_believed(out, tmp_path):
    half(out)
    other = Directory(tmp_path / "o", plan("f" * 64), RUNS, True, False)
    other.begin()
    for path in (out / "parts").iterdir():
        (other.parts / path.name).write_bytes(path.read_bytes())
    assert other.done() == set()
    other.close()


def test_rows_with_other_columns_are_trained_again(out, monkeypatch):
    import pyarrow as pa

    directory = half(out, 1)
    directory.columns = directory.columns.append(pa.field("more", pa.float64()))
    assert directory.done() == set()


@pytest.mark.parametrize("name", ["sweep.json", "runs.parquet", "curves.parquet", "SHA256SUMS"])
def test_of_1000_flipped_bits_in_a_finished_sweep_none_is_believed(name, out):
    work(out)
    whole = (out / name).read_bytes()
    sweep_files.load(out)
    for damaged in flips(whole, 1000):
        (out / name).write_bytes(damaged)
        with pytest.raises(ValueError, match=r"^[^\n]*$"):
            sweep_files.load(out)
        with pytest.raises(ValueError, match=r"^[^\n]*$"):
            Directory(out, plan(), RUNS, True, False)
    (out / name).unlink()
    with pytest.raises(ValueError, match=r"^[^\n]*$"):
        sweep_files.load(out)


def test_of_1000_flipped_bits_in_an_unfinished_sweep_none_is_believed(out):
    half(out)
    for damaged in flips((out / "sweep.json").read_bytes(), 1000):
        (out / "sweep.json").write_bytes(damaged)
        for overwrite in (False, True):
            with pytest.raises(ValueError, match=r"is no sweep, or sweep\.json is damaged"):
                Directory(out, plan(), RUNS, True, overwrite)


HOSTILE = [
    b"",
    b"null",
    b"[]",
    b"{}",
    b"{",
    b"[" * 200_000,
    b'{"a":' * 100_000,
    b"\xff\xfe",
    b"1" * 10_000,
    b'{"schema": 2}',
    b'{"schema": null, "identity": null, "finished": null}',
    b'{"schema": 1}',
    sealed.seal({"schema": 2}),
    sealed.seal({**plan(), "identity": None, "finished": True}),
    sealed.seal({**plan(), "finished": 1}),
    sealed.seal({**plan(), "finished": True}),
    sealed.seal({**plan(), "experiment": {"hidden": None}, "finished": True}),
]


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_any_sweep_json_is_one_line(text, out, capsys):
    work(out)
    (out / "sweep.json").write_bytes(text)
    for arguments in ([str(out)], [str(out), "--value", "spike"]):
        with pytest.raises(SystemExit) as ended:
            sweep_figures.main(arguments)
        assert ended.value.code == 2
        assert capsys.readouterr().err.count("\n") == 1
    with suppress(ValueError):
        Directory(out, plan(), RUNS, True, False)


def test_tables_that_were_made_by_something_else_are_one_line(out, capsys):
    work(out)
    for content in (b"PAR1", (out / "curves.parquet").read_bytes()):
        (out / "runs.parquet").write_bytes(content)
        subprocess.run("sha256sum *.* > SHA256SUMS", shell=True, cwd=out, check=True)
        with pytest.raises(SystemExit) as ended:
            sweep_figures.main([str(out)])
        assert ended.value.code == 2
        assert capsys.readouterr().err.count("\n") == 1


def test_the_standard_tool_knows_the_list(out):
    work(out)
    check = subprocess.run(["sha256sum", "-c", "SHA256SUMS"], cwd=out, capture_output=True)
    assert check.returncode == 0
    assert check.stdout.count(b": OK") == 5


# ---- what is not ours


NAMES = st.sampled_from(
    [
        "runs.parquet",
        "curves.parquet",
        "heat.png",
        "foretold.png",
        "SHA256SUMS",
        "notes.txt",
        "sweep.json.partial",
        ".runs.parquet.0123456789abcdef.partial2",
        "parts/notes.txt",
        "parts/00000000-00000005.parquet",
        "parts/.x.parquet.partial",
        "parts/a/b.txt",
        f"parts/00000000-00000001.{'0' * 32}.parquet",
        f"parts/00000002-00000003.{'f' * 32}.parquet",
        "sweep.json",
        "parts",
    ]
)
FOREIGN = st.dictionaries(NAMES, st.binary(max_size=40), max_size=4)
STATES = st.sampled_from(["nothing", "unfinished", "finished"])


class KilledError(BaseException):
    """kill -9 at this point."""


REACHES = ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir")
counter: dict = {"left": None, "top": ""}


def watch(event: str, arguments: tuple) -> None:
    if counter["left"] is None or event not in REACHES:
        return
    if not str(arguments[0]).startswith(counter["top"]):
        return
    counter["left"] -= 1
    if counter["left"] < 0:  # and whatever would tidy up after it
        raise KilledError


sys.addaudithook(watch)


@contextmanager
def killed_after(operations: int, top: Path):
    """Every operation on files under `top` fails from this one on, as after kill -9."""
    counter.update(left=operations, top=str(top))
    try:
        yield
    finally:
        counter.update(left=None)


def put(out: Path, foreign: dict[str, bytes]) -> dict[str, bytes]:
    """Puts files where nothing stands; what was put."""
    placed = {}
    for name, content in foreign.items():
        path = out / name
        with suppress(FileExistsError, NotADirectoryError):
            path.parent.mkdir(parents=True, exist_ok=True)
            if not path.exists():
                path.write_bytes(content)
                placed[name] = content
    return placed


@pytest.mark.examples(300)
@given(FOREIGN, FOREIGN, STATES, st.booleans(), st.booleans(), st.integers(0, 80), st.booleans())
def test_a_file_that_is_not_ours_is_never_changed(
    before, later, state, overwrite, another, operations, killed
):
    """Whatever lies there, whatever is asked, and wherever it is killed."""
    with tempfile.TemporaryDirectory() as top:
        out = Path(top) / "s"
        placed = put(out, before) if state == "nothing" else {}
        with suppress(ValueError):
            {"nothing": lambda out: None, "unfinished": half, "finished": work}[state](out)
        placed |= put(out, later)
        identity = "f" * 64 if another else IDENTITY
        with killed_after(operations if killed else 10**9, out), suppress(ValueError, KilledError):
            work(out, True, overwrite, identity)
        with suppress(ValueError):
            work(out, True, overwrite, identity)
        found = contents(out)
        assert {name: found.get(name) for name in placed} == placed


def test_killed_at_any_operation_it_ends_as_if_it_was_not(tmp_path):
    work(tmp_path / "whole")
    expected = contents(tmp_path / "whole")
    foreign = {
        "notes.txt": b"precious",
        "parts/notes.txt": b"precious",
        "sweep.json.partial": b"{",
        f"parts/00000000-00000001.{'0' * 32}.parquet": b"PAR1",
    }
    operations = 0
    for operations in range(200):
        out = tmp_path / str(operations)
        with killed_after(operations, out):
            try:
                work(out)
                break
            except KilledError:
                pass
        (out / "parts").mkdir(parents=True, exist_ok=True)
        if (out / "sweep.json").exists():
            put(out, foreign)
        work(out)
        found = contents(out)
        for name, content in expected.items():
            if name not in ("sweep.json", "SHA256SUMS"):  # these hold a time
                assert found[name] == content
        assert sealed.unseal(found["sweep.json"])["finished"] is True
        sweep_files.load(out)
        assert set(found) - set(expected) in (set(), set(foreign))
    assert 30 < operations < 199


def test_an_interrupted_overwrite_leaves_a_sweep_that_can_be_overwritten(tmp_path):
    operations = 0
    for operations in range(200):
        out = tmp_path / str(operations)
        work(out)
        with killed_after(operations, out):
            try:
                work(out, False, True, "f" * 64)
                break
            except KilledError:
                pass
        work(out, False, True, "f" * 64)
        assert sweep_files.load(out)[0]["identity"] == "f" * 64
        assert set(contents(out)) == {
            "sweep.json",
            "runs.parquet",
            "curves.parquet",
            "SHA256SUMS",
            *FIGURES,
        }
    assert 30 < operations < 199


def test_files_in_the_way_are_refused_before_the_first_step(out):
    half(out)
    for name in ("runs.parquet", "curves.parquet", "heat.png", "SHA256SUMS"):
        (out / name).write_bytes(b"mine")
        for overwrite in (False, True):
            with pytest.raises(ValueError, match=f"{name} is .*; move it away, or choose"):
                Directory(out, plan(), RUNS, True, overwrite)
        (out / name).unlink()
    (out / "SHA256SUMS").write_text(f"{'0' * 64}  sweep.json\n")  # as a user may list it
    with pytest.raises(ValueError, match="SHA256SUMS is not the sweep's; move it away"):
        Directory(out, plan(), RUNS, True, False)


def test_figures_go_nowhere_but_over_figures(out, tmp_path):
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "heat.png").write_bytes(b"my holidays")
    with pytest.raises(ValueError, match=r"heat\.png is not as it was written here"):
        sweep_files.save_figures(mine, FIGURES, IDENTITY)
    assert contents(mine) == {"heat.png": b"my holidays"}
    (mine / "heat.png").unlink()
    for content in (b"one", b"two"):
        sweep_files.save_figures(mine, {"heat.png": content}, IDENTITY)
        assert (mine / "heat.png").read_bytes() == content


def test_what_is_no_file_is_in_the_way_too(out):
    half(out)
    for make in (os.mkfifo, os.mkdir):
        for name in ("heat.png", "SHA256SUMS"):
            make(out / name)
            with pytest.raises(ValueError, match="move it away"):
                Directory(out, plan(), RUNS, True, True)
            (out / name).rename(out / f"away {name} {make.__name__}")


@pytest.mark.parametrize(
    "place", ["loop", "nowhere", "x" * 300, "file", "file/s", "loop/s", "y/" * 3000]
)
def test_where_no_directory_can_be_is_said_before_the_first_step(place, tmp_path):
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "nowhere").symlink_to(tmp_path / "gone")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ValueError, match=r"a directory"):
        Directory(tmp_path / place, plan(), RUNS, True, False)


def test_a_name_as_long_as_the_disk_takes_is_taken(tmp_path):
    work(tmp_path / ("x" * 255))
    assert set(contents(tmp_path / ("x" * 255))) >= {"runs.parquet", "SHA256SUMS"}


def test_a_full_disk_is_said_before_the_first_step(out, monkeypatch):
    def full(*_):
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OSError, match="No space left") as refused:
        Directory(out, plan(), RUNS, True, False)
    assert refused.value.filename == str(out.parent)
    assert not out.exists()


def test_room_is_enough_for_parts_and_tables(out):
    directory = half(out)
    parts = [path.stat().st_size for path in directory.parts.iterdir()]
    tables = [len(sweep_files.parquet(table)) for table in work_tables(directory)]
    assert sum(parts) + sum(tables) < sweep_directory.RESERVE


def work_tables(directory: Directory):
    directory.begin()
    directory.add([row(run) for run in CHUNKS[2]])
    directory.close()
    return directory.tables()


def test_a_part_that_is_lost_meanwhile_is_noticed(out):
    directory = half(out)
    with pytest.raises(ValueError, match="lacks 2 of 6 runs"):
        directory.tables()
    assert pq.read_table(sorted((out / "parts").iterdir())[0])["run"].to_pylist() == [0, 1]


def test_sweep_json_says_what_it_said(out):
    work(out)
    said = json.loads((out / "sweep.json").read_text())
    assert {"finished", "sha256", "timings", *plan()} == set(said)
    assert command.KEPT

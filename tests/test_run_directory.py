"""A run's directory: whatever stands in it and whenever a run is killed, nothing is lost."""

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jaxmlp import atomic
from jaxmlp.commands import compare
from jaxmlp.record import figures, run_directory, run_figures, run_files, saved_record
from jaxmlp.record.run_files import KNOWN, SUMS

FLIPS = 1000
RESULT = {"schema": 3, "framework": "jax", "finished": True}


def files(mark: str, *, finished: bool = True, left_out: tuple[str, ...] = ()) -> dict[str, bytes]:
    """A record's files, small, told apart by a mark."""
    made = {name: f"{name} of {mark}".encode() for name in KNOWN if name != SUMS}
    made["result.json"] = json.dumps({**RESULT, "finished": finished, "mark": mark}).encode()
    return {name: content for name, content in made.items() if name not in left_out}


NEW = files("new", left_out=("weights.png",))


def lay(out: Path, content: dict[str, bytes], sealed: bool = True) -> None:
    out.mkdir(parents=True, exist_ok=True)
    for name, each in content.items():
        (out / name).write_bytes(each)
    if sealed and content:
        (out / SUMS).write_bytes(run_files.sums(content))


def lay_foreign(out: Path, draw: random.Random) -> None:
    """Files, folders and links of a user's, with names that might be taken for ours."""
    out.mkdir(parents=True, exist_ok=True)
    for name in draw.sample(["thesis.txt", ".notes", "result.json.bak", "data", "curves.pdf"], 2):
        (out / name).write_bytes(draw.randbytes(9))
    for name in draw.sample(["folder", "steps", ".jaxmlp", "2024"], 2):
        (out / name).mkdir()
        (out / name / draw.choice(("steps.npz", "photo.jpg", SUMS))).write_bytes(draw.randbytes(9))
    (out / "link").symlink_to(draw.choice(("folder", "thesis.txt", "nowhere", "link", "/")))


OLDER = {  # content, whether it is sealed, whether it is replaced without --overwrite
    "none": ({}, True, True),
    "finished": (files("old"), True, False),
    "unfinished": (files("old", finished=False), True, True),
    "of schema 1": (files("old"), False, False),
    "unfinished, of schema 1": (files("old", finished=False), False, True),
}


def snapshot(directory: Path, without: tuple[str, ...] = ()) -> dict[str, Any]:
    """All that stands in a directory, but for the names of a record in it itself."""
    told: dict[str, Any] = {}
    for path in sorted(directory.rglob("*")):
        name = str(path.relative_to(directory))
        if name in without or name.startswith((run_directory.INCOMING, run_files.READY)):
            continue
        if path.is_symlink():
            told[name] = path.readlink()
        else:
            told[name] = path.read_bytes() if path.is_file() else "directory"
    return told


def nothing(result: dict[str, Any]) -> list[str]:
    """What these runs differ in."""
    return []


def save(out: Path, content: dict[str, bytes], overwrite: bool = False) -> None:
    with run_directory.claimed(out, overwrite, 0, nothing):
        run_directory.save(out, content)


class Killed(BaseException):
    """What a killed process does next: nothing."""


@contextlib.contextmanager
def killed_after(count: int, monkeypatch) -> Iterator[None]:
    """Lets so many operations of the file system happen, and no other."""
    left = [count]

    def counting(operation):
        def run(*arguments, **options):
            left[0] -= 1
            if left[0] < 0:
                raise Killed
            return operation(*arguments, **options)

        return run

    with monkeypatch.context() as patched:
        for name in ("mkdir", "rename", "replace", "unlink", "rmdir", "open"):
            patched.setattr(Path, name, counting(getattr(Path, name)))
        patched.setattr(os, "fsync", counting(os.fsync))
        yield


@pytest.mark.parametrize("older", OLDER)
def test_a_run_killed_at_any_operation_leaves_the_old_record_or_the_new_and_nothing_else(
    tmp_path, monkeypatch, older
):
    content, sealed, _ = OLDER[older]
    foreign = bool(content)  # beside nothing of ours, foreign files are refused
    for count in range(1000):
        out = tmp_path / str(count)
        lay(out, content, sealed)
        if foreign:
            lay_foreign(out, random.Random(count))
        before = snapshot(out, without=KNOWN)
        killed = True
        with killed_after(count, monkeypatch), contextlib.suppress(Killed):
            save(out, NEW, overwrite=True)
            killed = False
        assert snapshot(out, without=KNOWN) == before
        there = None
        if run_files.is_sealed(out):
            there = run_files.read(out)
            assert there in (content, NEW)
        elif content:
            assert {name: (out / name).read_bytes() for name in content} == content
        run_directory.settle(out)
        save(out, files("newer"), overwrite=True)
        assert run_files.read(out) == files("newer")
        assert snapshot(out, without=KNOWN) == before
        assert {p.name for p in out.iterdir()} & {
            run_directory.INCOMING,
            run_files.READY,
        } == set()
        if not killed:
            assert count > 20
            return
    raise AssertionError("it never came to an end")


@pytest.mark.parametrize("seed", range(100))
def test_nothing_that_is_not_ours_is_ever_changed(tmp_path, monkeypatch, seed):
    draw = random.Random(seed)
    older, overwrite = draw.choice(list(OLDER)), draw.random() < 0.5
    content, sealed, free = OLDER[older]
    out = tmp_path / "out"
    lay(out, content, sealed)
    if damaged := bool(content) and sealed and draw.random() < 0.5:
        (out / draw.choice(list(content))).write_bytes(b"damage")
    if foreign := draw.random() < 0.7:
        lay_foreign(out, draw)
    taken = not content and draw.random() < 0.5
    if taken:  # a name of ours that is a user's
        (out / draw.choice(KNOWN)).write_bytes(b"precious")
    before = snapshot(out)
    refused = (not content and (foreign or taken)) or ((damaged or not free) and not overwrite)
    told = ""
    with killed_after(draw.choice((10, 20, 30, 1000)), monkeypatch), contextlib.suppress(Killed):
        try:
            save(out, NEW, overwrite)
        except ValueError as error:
            told = str(error)
    assert bool(told) == refused
    if refused:
        assert snapshot(out) == before
    assert snapshot(out, KNOWN) == {k: v for k, v in before.items() if k not in KNOWN}


def test_a_process_that_is_killed_at_any_moment_leaves_a_whole_record(tmp_path):
    out = tmp_path / "out"
    lay(out, files("0"))
    lay_foreign(out, random.Random(0))
    before = snapshot(out, without=KNOWN)
    code = (
        "import sys; sys.path.insert(0, sys.argv[2])\n"
        "from pathlib import Path\n"
        "import test_run_directory as t\n"
        "print('ready', flush=True)\n"
        "for i in range(10**6): t.save(Path(sys.argv[1]), t.files(str(i)), overwrite=True)"
    )
    draw = random.Random(0)
    for _ in range(8):
        process = subprocess.Popen(
            [sys.executable, "-c", code, str(out), str(Path(__file__).parent)],
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        assert process.stdout
        assert process.stdout.readline() == b"ready\n"
        time.sleep(draw.uniform(0.01, 0.1))
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        mark = json.loads(run_files.read(out)["result.json"])["mark"]
        assert run_files.read(out) == files(mark)
        assert snapshot(out, without=KNOWN) == before


def test_what_the_new_record_does_not_have_goes_only_if_it_is_the_old_ones(tmp_path):
    lay(tmp_path / "a", files("old"))
    save(tmp_path / "a", NEW, overwrite=True)
    assert not (tmp_path / "a" / "weights.png").exists()
    lay(tmp_path / "b", files("old"))
    (tmp_path / "b" / "weights.png").write_text("a drawing of my own")
    save(tmp_path / "b", NEW, overwrite=True)
    assert (tmp_path / "b" / "weights.png").read_text() == "a drawing of my own"


def test_a_file_that_takes_a_records_name_meanwhile_stays_and_so_does_the_record(tmp_path):
    with run_directory.claimed(tmp_path, False, 0, nothing):
        (tmp_path / "steps.npz").write_text("precious")
        with pytest.raises(ValueError, match="is not ours"):
            run_directory.save(tmp_path, NEW)
    assert (tmp_path / "steps.npz").read_text() == "precious"
    assert run_files.read(tmp_path) == NEW
    (tmp_path / "steps.npz").unlink()
    run_directory.settle(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*NEW, SUMS])


def test_a_file_that_takes_a_records_name_before_a_killed_run_is_finished_stays(
    tmp_path, monkeypatch
):
    move = Path.replace

    def killed(path: Path, target: Path) -> None:
        move(path, target)
        raise Killed

    with monkeypatch.context() as patched, run_directory.claimed(tmp_path, False, 0, nothing):
        patched.setattr(Path, "replace", killed)
        with pytest.raises(Killed):
            run_directory.save(tmp_path, NEW)
    taken = tmp_path / "steps.npz"
    assert not taken.exists()
    taken.write_text("precious")
    run_directory.settle(tmp_path)
    assert taken.read_text() == "precious"
    assert run_files.read(tmp_path) == NEW


@pytest.mark.parametrize("name", KNOWN)
def test_a_folder_or_a_link_with_a_records_name_is_refused(tmp_path, name):
    lay(tmp_path / "a", files("old"))
    (tmp_path / "a" / name).unlink()
    (tmp_path / "a" / name).symlink_to("../precious")
    (tmp_path / "precious").mkdir()
    with pytest.raises(ValueError, match=r"is no file of a run|not a run's"):
        save(tmp_path / "a", NEW, overwrite=True)
    assert (tmp_path / "a" / name).is_symlink()


def test_a_claim_leaves_nothing_behind_and_ends_with_its_context(tmp_path):
    out = tmp_path / "a" / "b"
    with run_directory.claimed(out, False, 0, nothing):
        assert out.is_dir()
        with (
            pytest.raises(ValueError, match="another run is at work"),
            run_directory.claimed(out, False, 0, nothing),
        ):
            pass
        assert out.is_dir()
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "mine").mkdir()
    with run_directory.claimed(tmp_path / "mine", False, 0, nothing):
        pass
    assert (tmp_path / "mine").is_dir()


def test_a_claim_holds_where_the_directory_is_removed_while_it_is_taken(tmp_path, monkeypatch):
    flock, out = atomic.fcntl.flock, tmp_path / "a"
    gone = []

    def removing(descriptor, how):
        if not gone:
            gone.append(out.rmdir())
        return flock(descriptor, how)

    monkeypatch.setattr(atomic.fcntl, "flock", removing)
    save(out, NEW)
    assert run_files.read(out) == NEW


@pytest.mark.smoke
def test_the_sums_are_those_of_the_standard_tool(tmp_path):
    save(tmp_path / "a", NEW)
    checked = subprocess.run(
        ["sha256sum", "-c", SUMS], cwd=tmp_path / "a", capture_output=True, text=True
    )
    assert checked.stdout.splitlines() == [f"{name}: OK" for name in sorted(NEW)]
    sums = subprocess.run(
        ["sha256sum", *NEW], cwd=tmp_path / "a", capture_output=True, text=True
    ).stdout
    (tmp_path / "a" / SUMS).write_text(sums)
    assert run_files.read(tmp_path / "a") == NEW


def test_a_single_file_appears_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "figure.png"
    path.write_text("old")
    count = 0
    for count in range(100):
        with killed_after(count, monkeypatch), contextlib.suppress(Killed):
            atomic.replace(path, b"new")
        if path.read_text() == "new":
            break
        for partial in tmp_path.glob(".jaxmlp-*"):
            partial.unlink()
    assert count > 2
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("target", "what"), [("link", "a loop of links"), ("nowhere", "a link that leads nowhere")]
)
def test_a_link_that_leads_nowhere_is_no_place_for_results(tmp_path, target, what):
    (tmp_path / "link").symlink_to(tmp_path / target)
    with pytest.raises(ValueError, match=f"link is {what}; --out needs a directory's name"):
        atomic.make_directory(tmp_path / "link")


# ---- what is believed


@pytest.fixture
def run(command, tmp_path) -> Path:
    flags = ("--hidden", "5", "--batch-size", "8", "--epochs", "2", "--no-forecast")
    assert command(*flags, "--out", "run")[0] == 0
    return tmp_path / "run"


def test_no_flipped_bit_of_a_record_is_believed(run):
    saved_record.load(run)
    (run / "report.html").unlink()  # is no part of the record
    draw, names = random.Random(0), sorted(path.name for path in run.iterdir())
    for flip in range(FLIPS):
        path = run / names[flip % len(names)]
        intact = path.read_bytes()
        damaged, bit = bytearray(intact), draw.randrange(8 * len(intact))
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        for read in (saved_record.read, saved_record.load):
            with pytest.raises(ValueError, match="is no record of a run"):
                read(run)
        path.write_bytes(intact)
    saved_record.load(run)


def reseal(run: Path) -> None:
    names = [path.name for path in run.iterdir() if path.name != SUMS]
    (run / SUMS).write_bytes(run_files.sums({n: (run / n).read_bytes() for n in names}))


def places(value: Any, path: tuple = ()) -> Iterator[tuple]:
    """The path of every value in a record."""
    inner = value.items() if isinstance(value, dict) else enumerate(value)
    for key, each in inner:
        yield (*path, key)
        if isinstance(each, dict | list):
            yield from places(each, (*path, key))


def edited(text: str, path: tuple, value: Any) -> str:
    result = json.loads(text)
    *way, last = path
    inner = result
    for key in way:
        inner = inner[key]
    if value is DELETED:
        del inner[last]
    else:
        inner[last] = value
    return json.dumps(result)


DELETED = object()
VALUES = (DELETED, None, "x", -1, 10**400, 1e308, [], {}, [[]], True, "NaN")


def test_an_edited_record_is_refused_with_a_line_or_compared(run):
    text = (run / "result.json").read_text()
    first = saved_record.load(run)[0]
    lines = []
    for path in places(json.loads(text)):
        for value in VALUES:
            (run / "result.json").write_text(edited(text, path, value))
            reseal(run)
            try:
                result, *_ = saved_record.load(run)
            except ValueError as error:
                lines.append(str(error))
                continue
            for a, b in ((first, result), (result, first)):
                compare.describe(b)
                compare.differences(a, b)
                compare.outcomes(a, b)
                run_figures.title(b)
    assert len(lines) > 500
    assert not any("\n" in line for line in lines)


@pytest.mark.parametrize("schema", [1, 2, 4])
def test_a_record_of_another_schema_is_refused_with_a_line(run, schema):
    text = (run / "result.json").read_text()
    (run / "result.json").write_text(edited(text, ("schema",), schema))
    reseal(run)
    told = f"^{run} is no record of a run: it has schema {schema}, this reads 3; give a run's"
    with pytest.raises(ValueError, match=told):
        saved_record.load(run)


def swapped(old: str, new: str) -> Callable[[bytes], bytes]:
    return lambda text: text.replace(old.encode(), new.encode())


WRONG: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "nesting": ("result.json", lambda _: 100_000 * b"["),
    "a section of null": ("result.json", swapped('"data": {', '"data": null, "x": {')),
    "a section too few": ("result.json", swapped('"diagnostics": {', '"out": {')),
    "a rate that is no number": (
        "result.json",
        swapped('"learning_rate": [\n      0.02\n    ]', '"learning_rate": "x"'),
    ),
    "bare NaN": ("result.json", swapped('"spike": ', '"spike": NaN, "x": ')),
    "no JSON": ("result.json", lambda _: b"\xff\xfe"),
    "a truncated archive": ("steps.npz", lambda content: content[: len(content) // 2]),
    "no archive": ("params.npz", lambda _: b"x"),
    "an empty file": ("steps.npz", lambda _: b""),
    "another run's steps": ("steps.npz", lambda _: archive(loss=np.zeros(3))),
    "objects": ("params.npz", lambda _: archive(loss=np.array([{}], object))),
}


def archive(**arrays: np.ndarray) -> bytes:
    from jaxmlp.record import run_record as record

    return record.archive(arrays)


@pytest.mark.parametrize("what", WRONG)
def test_a_sealed_record_that_makes_no_sense_is_refused_with_a_line(run, capsys, what):
    name, change = WRONG[what]
    content = (run / name).read_bytes()
    (run / name).write_bytes(change(content))
    assert (run / name).read_bytes() != content
    reseal(run)
    with pytest.raises(SystemExit) as ended:
        compare.main([str(run), str(run), "--out", str(run.parent / "c.png")])
    told = capsys.readouterr().err
    assert (ended.value.code, told.count("\n")) == (2, 1)
    assert told.startswith(f"error: {run} is no record of a run: ")


def test_compare_replaces_its_own_figure_and_no_other_file(run, capsys, tmp_path):
    mine = tmp_path / "thesis.png"
    mine.write_bytes((run / "params.npz").read_bytes())
    (tmp_path / "link.png").symlink_to("thesis.png")
    for name in ("thesis.png", "link.png"):
        with pytest.raises(SystemExit) as ended:
            compare.main([str(run), str(run), "--out", str(tmp_path / name)])
        assert ended.value.code == 2
        assert "is no figure of ours; choose another --out" in capsys.readouterr().err
    assert mine.read_bytes() == (run / "params.npz").read_bytes()
    for _ in range(2):
        compare.main([str(run), str(run), "--out", str(tmp_path / "new.png")])
    assert (tmp_path / "new.png").read_bytes().startswith(b"\x89PNG")


def test_a_records_names_are_drawn_whatever_is_in_them(run, capsys):
    text = (run / "result.json").read_text()
    for name in ("\ud800", r"a$\frac$", "\N{CJK UNIFIED IDEOGRAPH-4E2D}"):
        (run / "result.json").write_text(edited(text, ("data", "name"), name))
        reseal(run)
        compare.main([str(run), str(run), "--out", str(run.parent / "c.png")])
        assert capsys.readouterr().err == ""
        figure, _ = figures.panels(f"3 runs on {name}", 1, 4)  # a sweep's
        assert figures.png(figure).startswith(b"\x89PNG")


@pytest.mark.parametrize("name", ["curves.png", "weights.png"])
def test_compare_draws_over_no_file_that_sums_list(run, capsys, name):
    other = run.parent / "other"
    shutil.copytree(run, other)
    (other / "weights.png").unlink()  # listed all the same
    before = snapshot(other)
    with pytest.raises(SystemExit) as ended:
        compare.main([str(run), str(run), "--out", str(other / name)])
    told = capsys.readouterr().err
    assert (ended.value.code, told.count("\n")) == (2, 1)
    assert f"{name} is of a record (SHA256SUMS lists it); choose another --out" in told
    assert snapshot(other) == before

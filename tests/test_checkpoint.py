"""Checkpoints: a run that was stopped goes on, and its record is that of one that was not."""

import errno
import logging
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tiny import arrays

from jaxmlp.errors import TerminatedError
from jaxmlp.experiment import Experiment
from jaxmlp.record import metrics, run_directory, saved_record
from jaxmlp.record import run_record as record
from jaxmlp.training import checkpoint_directory
from jaxmlp.training.checkpoint import Checkpoints
from jaxmlp.training.run import Run

FAST = ("--hidden", "5", "6", "--batch-size", "8", "--epochs", "5", "--no-forecast")
KEPT = (*FAST, "--out", "resumed", "--checkpoint", "ck")
KINDS = {  # flags, --checkpoint-every: 2 does not divide the third epoch, after which runs stop
    "float32": ((), "1"),
    "float64": (("--precision", "float64"), "2"),
    "adam": (
        ("--optimizer", "adam", "--bias", "--schedule", "cosine", "--warmup-epochs", "2"),
        "2",
    ),
    "linear": (("--hidden",), "1"),  # nothing hidden: metrics without elements
}


def assert_same(whole: Path, resumed: Path) -> None:
    """The records are one but for times."""
    (first, *_), (second, *_) = saved_record.load(whole), saved_record.load(resumed)
    assert first.pop("timings").keys() == second.pop("timings").keys()
    assert first == second
    for name in ("steps.npz", "params.npz"):
        assert (whole / name).read_bytes() == (resumed / name).read_bytes()


@pytest.fixture
def stopped(command, monkeypatch) -> Callable:
    """Runs the command, which gets a signal after its third epoch."""

    def run(*arguments: str, number: int = signal.SIGTERM):
        row = Run.row

        def signalling(trainer: Run, epoch: int, result: metrics.EpochResult):
            if epoch == 3:
                os.kill(os.getpid(), number)
            return row(trainer, epoch, result)

        with monkeypatch.context() as patched:
            patched.setattr(Run, "row", signalling)
            return command(*arguments)

    return run


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


@pytest.mark.parametrize("kind", KINDS)
def test_a_resumed_run_leaves_the_record_of_an_uninterrupted_one(command, stopped, tmp_path, kind):
    flags, every = KINDS[kind]
    resumable = (*KEPT, *flags, "--checkpoint-every", every)
    assert command(*FAST, *flags, "--out", "whole")[0] == 0
    status, _, err = stopped(*resumable)
    line = "error: terminated after epoch 3 of 5; the same command goes on from there\n"
    assert (status, err) == (75, line)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    assert names(tmp_path / "ck") == ["2", "3"]
    status, out, err = command(*resumable)
    assert (status, err) == (0, "")
    assert "resumed after epoch 3 of 5" in out
    assert [line[:9] for line in out.splitlines() if line.startswith("epoch")] == [
        "epoch 4/5",
        "epoch 5/5",
    ]
    assert_same(tmp_path / "whole", tmp_path / "resumed")
    assert names(tmp_path) == ["resumed", "tiny.npz", "whole"]


def test_ctrl_c_leaves_a_record_and_the_same_command_finishes_it(command, stopped, tmp_path):
    assert command(*FAST, "--out", "whole")[0] == 0
    resumable = (*KEPT, "--checkpoint-every", "5")
    status, out, err = stopped(*resumable, number=signal.SIGINT)
    assert (status, err) == (130, "")
    assert "checkpoint: ck; the same command goes on" in out
    assert not saved_record.load(tmp_path / "resumed")[0]["finished"]
    assert names(tmp_path / "ck") == ["3"]
    assert command(*resumable)[0] == 0
    assert_same(tmp_path / "whole", tmp_path / "resumed")
    assert names(tmp_path) == ["resumed", "tiny.npz", "whole"]


def test_sigterm_and_kill_9_at_any_moment_change_nothing(command, start, tmp_path):
    flags = (
        "--hidden",
        "5",
        "--batch-size",
        "1",
        "--learning-rate",
        "1e-3",
        "--epochs",
        "40",
        "--no-forecast",
    )
    resumable = (*flags, "--out", "resumed", "--checkpoint", "ck")
    assert command(*flags, "--out", "whole")[0] == 0
    draw, left = random.Random(0), ["ck", "tiny.npz", "whole"]
    for number, status, line in (
        (signal.SIGKILL, -9, ""),
        (signal.SIGTERM, 75, "error: terminated after epoch"),
        (signal.SIGKILL, -9, ""),
    ):
        process = start(*resumable)
        time.sleep(draw.uniform(0, 0.2))
        process.send_signal(number)
        _, err = process.communicate(timeout=120)
        assert process.returncode == status
        assert err.startswith(line)
        assert err.count("\n") == bool(line)
        assert names(tmp_path) in (left, sorted([*left, "resumed"]))
        assert not (tmp_path / "resumed").exists() or names(tmp_path / "resumed") == []
    status, _, err = command(*resumable)
    assert (status, err) == (0, "")
    assert_same(tmp_path / "whole", tmp_path / "resumed")
    assert names(tmp_path) == ["resumed", "tiny.npz", "whole"]


def full_disk(*arguments):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "resumed")


def test_a_run_stops_only_where_its_state_is_saved(tiny_dataset, tmp_path):
    answers = iter([False, False, True, True, True])  # SIGTERM comes after an epoch is passed by
    asked = Experiment(hidden=(5, 6), batch_size=8, epochs=5)
    run, finished = Run(asked, tiny_dataset), []
    hook, filters = sys.unraisablehook, [*logging.getLogger("absl").filters]
    with Checkpoints(str(tmp_path / "ck"), 3, {}, print, stop_asked=lambda: next(answers)) as kept:
        assert kept.resume(run) == []
        epochs = run.epochs()
        finished.append(next(epochs))
        kept.save(run, finished, last=False)
        finished.append(next(epochs))
        with pytest.raises(TerminatedError, match="after epoch 2 of 5"):
            kept.save(run, finished, last=False)
    assert names(tmp_path / "ck") == ["2"]
    # Others' complaints are as they were: nothing here was damaged.
    assert sys.unraisablehook is hook
    assert logging.getLogger("absl").filters == filters


def test_when_only_the_record_is_missing_it_is_written_without_training(
    command, tmp_path, monkeypatch
):
    assert command(*FAST, "--out", "whole")[0] == 0
    with monkeypatch.context() as patched:
        patched.setattr(run_directory, "save", full_disk)
        assert command(*KEPT, "--checkpoint-every", "3")[0] == 1
    status, out, err = command(*KEPT, "--checkpoint-every", "3")
    assert (status, err) == (0, "")
    assert "resumed after epoch 5 of 5" in out
    assert_same(tmp_path / "whole", tmp_path / "resumed")


def test_another_runs_checkpoint_is_refused_with_what_differs(
    command, stopped, tmp_path, monkeypatch
):
    np.savez(tmp_path / "other.npz", **arrays(seed=1))
    assert stopped(*KEPT)[0] == 75
    environment = record.environment

    def newer(*arguments):
        made = environment(*arguments)
        return {**made, "device": "abacus", "versions": {**made["versions"], "optax": "99"}}

    for flags, data, versions, words in (
        (
            ("--seed", "1", "--learning-rate", "1", "2", "3"),
            "tiny.npz",
            environment,
            "learning_rate 0.02 there and 1.0 2.0 3.0 here, seed 0 there and 1 here",
        ),
        (("--bias",), "tiny.npz", environment, "bias False there and True here"),
        ((), "other.npz", environment, "data tiny "),
        ((), "tiny.npz", newer, "device cpu there and abacus here, optax"),
    ):
        monkeypatch.setattr(record, "environment", versions)
        status, _, err = command(*KEPT, *flags, data=data)
        assert (status, err.count("\n")) == (2, 1)
        assert words in err
        assert "choose another --checkpoint, or remove this one" in err
    assert names(tmp_path / "ck") == ["2", "3"]


def largest(checkpoint: Path) -> Path:
    """The file with the first layer's kernel."""
    files = (checkpoint / "state" / "ocdbt.process_0" / "d").iterdir()
    return max(files, key=lambda path: path.stat().st_size)


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "truncated": lambda at: os.truncate(largest(at), largest(at).stat().st_size // 2),
    "flipped bit": lambda at: flip_a_bit(largest(at)),
    "flipped setting": lambda at: flip_a_bit(at / "about" / "metadata"),
    "not our JSON": lambda at: (at / "about" / "metadata").write_text("[5]"),
    "no state": lambda at: shutil.rmtree(at / "state"),
    "empty": lambda at: [path.write_bytes(b"") for path in at.rglob("*") if path.is_file()],
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_gives_way_to_the_one_before(command, stopped, tmp_path, damage):
    assert command(*FAST, "--out", "whole")[0] == 0
    assert stopped(*KEPT)[0] == 75
    DAMAGES[damage](tmp_path / "ck" / "3")
    shutil.copytree(tmp_path / "ck", tmp_path / "copy")
    status, out, err = stopped(*KEPT)
    assert status == 75
    assert err.count("\n") == 1
    assert "warning: the checkpoint ck/3 is damaged and not used" in out
    assert "resumed after epoch 2 of 5" in out
    status, out, err = command(*KEPT)
    assert (status, err) == (0, "")
    assert "resumed after epoch 3 of 5" in out
    assert_same(tmp_path / "whole", tmp_path / "resumed")

    (tmp_path / "copy").rename(tmp_path / "ck")
    DAMAGES[damage](tmp_path / "ck" / "2")
    status, out, err = command(*KEPT, "--overwrite")
    assert status == 1
    assert err == "error: no checkpoint in ck is intact; remove it to train from the start\n"
    assert names(tmp_path / "ck") == ["2", "3"]


def test_a_checkpoint_under_another_epochs_name_is_damaged(command, stopped, tmp_path):
    assert command(*FAST, "--out", "whole")[0] == 0
    assert stopped(*KEPT)[0] == 75
    ck = tmp_path / "ck"
    shutil.copytree(ck / "3", ck / "99999")
    status, out, err = command(*KEPT)
    assert (status, err) == (0, "")
    assert "warning: the checkpoint ck/99999 is damaged and not used" in out
    assert "resumed after epoch 3 of 5" in out
    assert_same(tmp_path / "whole", tmp_path / "resumed")
    shutil.rmtree(tmp_path / "resumed")
    assert stopped(*KEPT)[0] == 75
    for old, new in (("3", "x"), ("2", "3"), ("x", "2")):  # each on its own is whole
        (ck / old).rename(ck / new)
    status, _, err = command(*KEPT)
    assert (status, err) == (
        1,
        "error: no checkpoint in ck is intact; remove it to train from the start\n",
    )


@pytest.mark.parametrize(
    "foreign",
    [
        "probe",
        "2024/photo.jpg",
        "2024/",
        "3/notes.txt",
        "3/state/notes.txt",
        "7",
        "4.txt",
        "6.orbax-checkpoint-tmp-mine/notes.txt",
        "6.orbax-checkpoint-tmp/notes.txt",
        "6.orbax-checkpoint-tmp-mine/",
    ],
)
def test_what_is_not_ours_in_a_checkpoints_directory_is_refused_and_stays(
    command, stopped, tmp_path, foreign
):
    ours = foreign.startswith("3/")
    if ours:
        assert stopped(*KEPT)[0] == 75
    path = tmp_path / "ck" / foreign
    path.parent.mkdir(parents=True, exist_ok=True)
    if foreign.endswith("/"):
        path.mkdir()
    else:
        path.write_text("precious")
    before = {each: each.is_file() and each.read_bytes() for each in tmp_path.rglob("*")}
    status, _, err = command(*KEPT, "--overwrite")
    assert (status, err.count("\n")) == (2, 1)
    assert f"ck holds {Path(foreign).parts[0]}, which is no checkpoint" in err
    assert {each: each.is_file() and each.read_bytes() for each in tmp_path.rglob("*")} == before


def test_a_folder_in_the_checkpoints_directory_stays_even_if_it_comes_while_training(
    command, tmp_path, monkeypatch
):
    row = Run.row

    def storing(trainer: Run, epoch: int, result: metrics.EpochResult):
        (tmp_path / "ck" / "2024").mkdir(exist_ok=True)
        (tmp_path / "ck" / "2024" / "photo.jpg").write_text("precious")
        return row(trainer, epoch, result)

    monkeypatch.setattr(Run, "row", storing)
    command(*KEPT)
    assert (tmp_path / "ck" / "2024" / "photo.jpg").read_text() == "precious"


@pytest.mark.parametrize("link", ["3", "3.orbax-checkpoint-tmp", "3.orbax-checkpoint-tmp/state"])
def test_a_link_with_a_checkpoints_name_is_refused_before_training(command, tmp_path, link):
    (tmp_path / "mine").mkdir()
    (tmp_path / "ck" / link).parent.mkdir(parents=True)
    (tmp_path / "ck" / link).symlink_to(tmp_path / "mine")
    status, out, err = command(*KEPT)
    assert (status, err.count("\n")) == (2, 1)
    assert "ck holds 3" in err
    assert "epoch 1/5" not in out
    assert (tmp_path / "ck" / link).is_symlink()


def test_only_what_orbax_left_unfinished_is_removed(command, tmp_path, monkeypatch):
    left = tmp_path / "ck" / "3.orbax-checkpoint-tmp" / "state.orbax-checkpoint-tmp"
    left.mkdir(parents=True)
    for locked in ("manifest.ocdbt", "_sharding", "_METADATA", "ocdbt.process_0", "a" * 32):
        (left / f"{locked}.__lock").write_text("")
    check, foreign = checkpoint_directory.check, tmp_path / "ck" / "4.orbax-checkpoint-tmp"

    def before(*arguments):
        check(*arguments)
        foreign.mkdir()
        (foreign / "notes.txt").write_text("precious")

    monkeypatch.setattr(checkpoint_directory, "check", before)
    assert command(*KEPT, "--epochs", "2")[0] == 0
    assert (foreign / "notes.txt").read_text() == "precious"
    assert names(tmp_path / "ck") == ["4.orbax-checkpoint-tmp"]


def test_two_runs_with_the_same_checkpoints_at_once_are_refused(command, start, tmp_path):
    flags = ("--hidden", "5", "--batch-size", "1", "--epochs", "100000", "--no-forecast")
    process = start(*flags, "--out", "first", "--checkpoint", "ck")
    try:
        status, _, err = command(*flags, "--out", "second", "--checkpoint", "ck")
    finally:
        process.kill()
        process.communicate()
    assert (status, err.count("\n")) == (2, 1)
    assert "another run is at work in ck" in err
    assert not (tmp_path / "second").exists()


def test_a_disk_without_room_for_checkpoints_is_said_before_training(
    command, tmp_path, monkeypatch
):
    asked = []

    def allocate(descriptor: int, offset: int, size: int) -> None:
        asked.append(size)
        if len(asked) == 2:
            full_disk()

    monkeypatch.setattr(os, "posix_fallocate", allocate)
    status, out, err = command(*KEPT)
    assert (status, err.count("\n")) == (1, 1)
    states = 3 * 2 * 4 * (60 * 5 + 5 * 6 + 6 * 7)  # of parameters and momentum, and a few counters
    assert states <= asked[1] < 1.1 * states
    assert "No space left on device" in err
    assert "epoch 1/5" not in out
    assert names(tmp_path) == ["tiny.npz"]


@pytest.mark.slow
def test_no_flipped_bit_of_a_checkpoint_is_believed(command, stopped, tmp_path):
    """Bits of every file, evenly: the run ends as if there had been none, or is refused."""
    assert command(*FAST, "--out", "whole")[0] == 0
    assert stopped(*KEPT, "--checkpoint-every", "3")[0] == 75
    intact = tmp_path / "intact"
    (tmp_path / "ck").rename(intact)
    files = sorted(path.relative_to(intact) for path in intact.rglob("*") if path.is_file())
    draw = random.Random(0)
    for name in files:
        shutil.copytree(intact, tmp_path / "ck")
        content = bytearray((intact / name).read_bytes())
        if not content:
            shutil.rmtree(tmp_path / "ck")
            continue
        bit = draw.randrange(8 * len(content))
        content[bit // 8] ^= 1 << bit % 8
        (tmp_path / "ck" / name).write_bytes(content)
        status, _, err = command(*KEPT, "--overwrite", "--checkpoint-every", "3")
        if status == 0:
            assert_same(tmp_path / "whole", tmp_path / "resumed")
        else:
            assert (status, err.count("\n")) == (1, 1), (name, bit, err)
            shutil.rmtree(tmp_path / "ck")


BAD = [  # arguments, status, words of the one line
    (
        ("--checkpoint", "tiny.npz"),
        2,
        "tiny.npz is a file or a loop of links; --checkpoint needs a",
    ),
    (("--checkpoint", "loop"), 2, "loop is a file or a loop of links"),
    (("--checkpoint", "full"), 2, "full holds thesis.txt, which is no checkpoint"),
    (("--checkpoint", "."), 2, "must lie apart"),
    (("--checkpoint", ""), 2, "--checkpoint has an empty name; give a directory's"),
    (("--checkpoint", "tiny.npz/below"), 1, "Not a directory"),
    (("--checkpoint", "/proc/nowhere"), 1, "/proc/nowhere"),
    (("--checkpoint", "a/ck", "--out", "a"), 2, "must lie apart"),
    (("--checkpoint", "a", "--out", "a/b"), 2, "must lie apart"),
    (("--checkpoint", "abc://bucket/ck"), 2, "give a directory's name, gs://... or s3://..."),
    (("--checkpoint", "ck", "--checkpoint-every", "0"), 2, "--checkpoint-every 0 must be at least"),
    (("--checkpoint-every", "2"), 2, "--checkpoint-every needs --checkpoint DIR"),
    (("--checkpoint", "ck", "--batch-size", "7"), 2, "batch size 7 does not divide"),
]


@pytest.mark.parametrize(("arguments", "expected", "words"), BAD, ids=lambda v: str(v)[:50])
def test_bad_input_is_one_line_and_leaves_nothing(command, tmp_path, arguments, expected, words):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("precious")
    (tmp_path / "loop").symlink_to("loop")
    before = sorted(path.name for path in tmp_path.rglob("*"))
    status, _, err = command(*FAST, *arguments)
    assert status == expected
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert words in err
    assert sorted(path.name for path in tmp_path.rglob("*")) == before


@pytest.mark.parametrize("target", ["gs://bucket/ck", "s3://bucket/ck"])
def test_a_buckets_name_reaches_its_file_system_as_it_is(command, monkeypatch, target):
    from etils import epath

    asked = []

    def absent(path: epath.Path) -> bool:
        asked.append(os.fspath(path))
        raise ImportError("install the file system's package")

    monkeypatch.setattr(type(epath.Path(target)), "exists", absent)
    status, _, err = command(*FAST, "--checkpoint", target)
    assert (status, err.count("\n")) == (2, 1)
    assert "install the file system's package" in err
    assert asked == [target]


def test_a_checkpoint_that_cannot_be_saved_is_one_line(command, tmp_path, monkeypatch):
    import orbax.checkpoint as ocp

    for told, line in (
        ("write failed\nsomewhere\n" + 9999 * "x", "cannot save in ck: write failed somewhere xx"),
        ("long\n[os_error_code='28']", "No space left on device (ck); free or mend the disk"),
    ):

        def failing(*arguments, told=told, **options):
            (tmp_path / "ck" / "1.orbax-checkpoint-tmp").mkdir()
            raise ValueError(told)

        monkeypatch.setattr(ocp.CheckpointManager, "save", failing)
        status, _, err = command(*KEPT)
        assert (status, err.count("\n")) == (1, 1)
        assert line in err
        assert len(err) < 400
        assert names(tmp_path) == ["tiny.npz"]


def test_a_command_that_has_finished_says_so_and_leaves_no_checkpoint(
    command, tmp_path, monkeypatch
):
    with monkeypatch.context() as patched:  # killed between the record and this
        patched.setattr(Checkpoints, "discard", lambda self: None)
        assert command(*KEPT)[0] == 0
    assert names(tmp_path / "ck") == ["4", "5"]
    before = (tmp_path / "resumed" / "result.json").read_bytes()
    status, out, _ = command(*KEPT)
    assert (status, out) == (0, "resumed holds this run's record; nothing is left to do\n")
    assert not (tmp_path / "ck").exists()
    assert (tmp_path / "resumed" / "result.json").read_bytes() == before
    status, _, err = command(*KEPT, "--seed", "1")
    assert status == 2
    assert "resumed holds a finished run" in err


def test_the_record_that_is_there_is_printed_where_it_was_asked_for(command, tmp_path):
    assert command(*KEPT)[0] == 0
    status, out, err = command(*KEPT, "--json")
    assert (status, err) == (0, "resumed holds this run's record; nothing is left to do\n")
    assert out == (tmp_path / "resumed" / "result.json").read_text()


def test_another_frameworks_record_is_not_this_runs(command, stopped, tmp_path):
    pytest.importorskip("torch")
    from jaxmlp.commands import run_torch

    run_torch.main([*FAST[:-1], "--data", "tiny.npz", "--out", "resumed"])
    assert stopped(*KEPT[:-3], "other", *KEPT[-2:])[0] == 75
    before = (tmp_path / "resumed" / "result.json").read_bytes()
    status, _, err = command(*KEPT)
    assert (status, err.count("\n")) == (2, 1)
    assert "resumed holds a finished run; --overwrite replaces it" in err
    assert names(tmp_path / "ck") == ["2", "3"]
    assert (tmp_path / "resumed" / "result.json").read_bytes() == before

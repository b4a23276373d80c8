"""The command: what it leaves, what it says, and what it does with bad input and bad disks."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from tiny import arrays

from jaxmlp.commands import flags as command_line
from jaxmlp.record import run_record as record
from jaxmlp.record import saved_record

FAST = ("--hidden", "5", "--batch-size", "8", "--epochs", "2")


def load_json(path: Path) -> dict:
    return json.loads(path.read_text())


@pytest.mark.smoke
def test_a_run_leaves_its_record_and_figures_and_says_where(command, tmp_path):
    status, out, err = command(*FAST, "--input-scale", "16")
    assert (status, err) == (0, "")
    (directory,) = (tmp_path / "runs").iterdir()
    assert directory.name.startswith("custom-tiny-")
    assert {p.name for p in directory.iterdir()} == {
        "result.json",
        "steps.npz",
        "params.npz",
        "curves.png",
        "first_steps.png",
        "weights.png",
        "report.html",
        "SHA256SUMS",
    }
    assert f"page:   runs/{directory.name}/report.html\nrecord: runs/{directory.name}" in out
    result, steps, params = saved_record.load(directory)
    assert result["finished"]
    assert [row["epoch"] for row in result["epochs"]] == [1, 2]
    assert steps["grad_norm"].shape == (6, 2)
    assert params["layer1.kernel"].shape == (60, 5)
    assert result["verdict"].split()[0].rstrip(":") in out
    for name in ("curves.png", "first_steps.png", "weights.png"):
        assert (directory / name).read_bytes().startswith(b"\x89PNG")


def test_the_same_command_twice_gives_the_same_result_but_for_times(command, tmp_path):
    for name in ("a", "b"):
        assert command(*FAST, "--out", name)[0] == 0
    first, second = (load_json(tmp_path / name / "result.json") for name in ("a", "b"))
    assert first.pop("timings").keys() == second.pop("timings").keys()
    assert first == second
    for name in ("steps.npz", "params.npz"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


@pytest.mark.slow
def test_devices_that_share_each_batch_give_the_same_run_to_rounding(
    command, start, tmp_path, monkeypatch
):
    asked = (*FAST, "--bias", "--optimizer", "adam", "--learning-rate", "0.01")
    assert command(*asked, "--out", "one")[0] == 0
    monkeypatch.setenv("XLA_FLAGS", "--xla_force_host_platform_device_count=4")
    process = start(*asked, "--data-parallel", "4", "--out", "four")
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    (one, steps, params), (four, steps_of_4, params_of_4) = (
        saved_record.load(tmp_path / name) for name in ("one", "four")
    )
    assert (one["environment"]["device"], four["environment"]["device"]) == ("cpu", "4 × cpu")
    np.testing.assert_allclose(steps_of_4["loss"], steps["loss"], rtol=1e-5)
    np.testing.assert_allclose(steps_of_4["grad_norm"], steps["grad_norm"], rtol=1e-4)
    np.testing.assert_array_equal(steps_of_4["dead"], steps["dead"])
    for name, expected in params.items():
        np.testing.assert_allclose(params_of_4[name], expected, rtol=1e-3, atol=1e-5)
    code = (
        "from jaxmlp.data.loading import load_data\nfrom jaxmlp.training.run import Run\n"
        "from jaxmlp.experiment import Experiment\n"
        "run = Run(Experiment(hidden=(5,), batch_size=8), load_data('tiny.npz'), 4)\n"
        "print(run.compiled.input_shardings[0][2].shard_shape((3, 8)))\n"
        "print('all-reduce' in run.compiled.as_text())"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert said.stdout == "(3, 2)\nTrue\n", said.stderr  # shared indeed
    status, _, err = command(*FAST, "--data-parallel", "3")
    assert status == 2
    assert "data parallel 3 does not divide the 1 devices; choose 1" in err


def test_json_goes_to_standard_output_and_all_else_to_standard_error(command, tmp_path):
    status, out, err = command(*FAST, "--json", "--out", "a")
    assert status == 0
    assert json.loads(out) == load_json(tmp_path / "a" / "result.json")
    assert "epoch 1/2" in err


def test_a_finished_run_is_not_overwritten_unless_asked(command, tmp_path):
    assert command(*FAST, "--out", "a")[0] == 0
    before = (tmp_path / "a" / "result.json").read_bytes()
    status, _, err = command(*FAST, "--out", "a", "--seed", "1")
    assert (status, err.count("\n")) == (2, 1)
    assert "a holds a finished run; --overwrite replaces it" in err
    assert (tmp_path / "a" / "result.json").read_bytes() == before
    assert command(*FAST, "--out", "a", "--seed", "1", "--overwrite")[0] == 0
    assert load_json(tmp_path / "a" / "result.json")["experiment"]["seed"] == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "tiny.npz"]


def test_an_unfinished_run_gives_way_to_itself_alone(command, tmp_path, monkeypatch):
    from jaxmlp.training.run import Run

    def interrupted(run, epoch, result, row=Run.row):
        os.kill(os.getpid(), signal.SIGINT)
        return row(run, epoch, result)

    with monkeypatch.context() as patched:
        patched.setattr(Run, "row", interrupted)
        assert command(*FAST, "--out", "a")[0] == 130
    np.savez(tmp_path / "other.npz", **arrays(seed=1))
    before = (tmp_path / "a" / "result.json").read_bytes()
    for flags, data, words in (
        (("--seed", "1", "--bias"), "tiny.npz", "another bias, seed"),
        ((), "other.npz", "another data"),
    ):
        status, out, err = command(*FAST, *flags, "--out", "a", data=data)
        assert (status, err.count("\n")) == (2, 1)
        assert f"a holds an unfinished run with {words}; --overwrite replaces it" in err
        assert "epoch" not in out
        assert (tmp_path / "a" / "result.json").read_bytes() == before
    assert command(*FAST, "--out", "a")[0] == 0
    assert saved_record.load(tmp_path / "a")[0]["finished"]


def test_a_flag_overrides_its_case(command, tmp_path):
    flags = ("--case", "scaled-lr-init", "--seed", "4", "--init-scale", "0.5", "--batch-size", "8")
    assert command(*flags, "--epochs", "1", "--out", "a")[0] == 0
    asked = load_json(tmp_path / "a" / "result.json")["experiment"]
    assert (asked["seed"], asked["init_scale"], asked["input_scale"]) == (4, [0.5], 255.0)
    assert asked["learning_rate"] == [0.02 / 255]
    flags = ("--case", "scaled-lr", "--input-scale", "4", "--batch-size", "8", "--epochs", "1")
    assert command(*flags, "--out", "b")[0] == 0
    assert load_json(tmp_path / "b" / "result.json")["experiment"]["learning_rate"] == [0.005]
    names = [load_json(tmp_path / name / "result.json")["case"] for name in ("a", "b")]
    assert names == ["custom", "scaled-lr"]  # what it changed is overridden, or is not


@pytest.mark.parametrize(
    ("flags", "name"),
    [
        (("--case", "scaled", "--input-scale", "1"), "baseline"),
        (("--case", "scaled-lr1", "--learning-rate", "0.02"), "scaled"),
        (("--case", "baseline", "--input-scale", "255"), "scaled"),
        (("--case", "scaled-lr", "--hidden", "7"), "scaled-lr"),
    ],
)
def test_a_record_names_no_case_that_it_is_not(flags, name):
    parser = command_line.parser("")
    assert command_line.experiment(parser.parse_args(flags))[0] == name


@pytest.mark.parametrize("platform", ["cuda", "nonsense"])
def test_a_platform_that_is_not_there_is_one_line(platform, tiny_npz, script):
    ended = subprocess.run(
        [sys.executable, script.__file__, "--data", str(tiny_npz), *FAST],
        env={**os.environ, "JAX_PLATFORMS": platform},
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 2
    assert ended.stderr.startswith(f"error: JAX_PLATFORMS={platform}: JAX finds no such device")
    assert ended.stderr.count("\n") == 1


def test_numbers_that_are_not_finite_are_a_result(command, tmp_path):
    status, out, _ = command(*FAST, "--learning-rate", "1e30", "--out", "a")
    assert status == 0
    result = load_json(tmp_path / "a" / "result.json")
    assert result["outcome"] == "nonfinite"
    assert "no longer finite from step" in out


BAD = [  # arguments, status, words of the one line; data first where it is not the good file
    (("--hidden", "0"), 2, "hidden 0 must be at least 1"),
    (("--hidden", "x"), 2, "--hidden: invalid int value: 'x'"),
    (("--input-scale", "0"), 2, "input_scale 0.0 must be a positive"),
    (("--input-scale", "-3"), 2, "input_scale -3.0 must be a positive"),
    (("--input-scale", "nan"), 2, "input_scale nan must be"),
    (("--input-scale", "inf"), 2, "input_scale inf must be"),
    (("--input-scale", "1e300"), 2, "float32 can hold"),
    (("--input-scale", "abc"), 2, "invalid float value: 'abc'"),
    (("--input-scale",), 2, "--input-scale: expected one argument"),
    (("--init-scale", "1", "2", "3"), 2, "init_scale has 3 values; the network has 2 layers"),
    (("--init-scale",), 2, "init_scale has 0 values"),
    (("--learning-rate", "0.1", "0.1", "0.2"), 2, "give one value for all or one per layer"),
    (("--learning-rate", "-1"), 2, "learning_rate -1.0 must be 0 or"),
    (("--learning-rate", "inf"), 2, "learning_rate inf"),
    (("--weight-decay", "-1"), 2, "weight_decay -1.0"),
    (("--weight-decay", "nan"), 2, "weight_decay nan"),
    (("--momentum", "1"), 2, "momentum 1.0 must lie in [0, 1)"),
    (("--momentum", "0.5", "--optimizer", "adam"), 2, "momentum does not apply"),
    (("--optimizer", "sdg"), 2, "optimizer 'sdg' is not known; choose from sgd"),
    (("--nesterov", "--momentum", "0"), 2, "it needs a momentum above 0"),
    (("--schedule", "linear"), 2, "schedule 'linear' is not known; choose from constant"),
    (("--schedule", "step"), 2, "schedule step needs milestones"),
    (("--milestones", "2"), 2, "belong to the schedule step"),
    (("--batch-size", "7"), 2, "batch size 7 does not divide 24 training images; 6 and 8 do"),
    (("--batch-size", "25"), 2, "batch size 25 does not divide 24 training images; 24 does"),
    (("--batch-size", "0"), 2, "batch_size 0 must be at least 1"),
    (("--epochs", "0"), 2, "epochs 0 must be at least 1"),
    (("--epochs", "1.5"), 2, "invalid int value: '1.5'"),
    (("--seed", "-1"), 2, "seed -1 must lie in"),
    (("--train-size", "25"), 2, "train size 25"),
    (("--precision", "half"), 2, "precision 'half' is not known"),
    (("--preprocessing", "zca"), 2, "preprocessing 'zca' is not known"),
    (("--case", "scald"), 2, "case 'scald' is not known; choose from baseline"),
    (("--case", "scaled-lr", "--input-scale", "-1"), 2, "input_scale -1.0 must be a positive"),
    (("--input-scal", "2"), 2, "unrecognized arguments: --input-scal"),
    (("--frobnicate",), 2, "unrecognized arguments: --frobnicate"),
    (("--out", "tiny.npz"), 2, "tiny.npz is a file; --out needs a directory's name"),
    (("--out", "full"), 2, "full holds files that are not a run's (thesis.txt)"),
    (("--out", "loop"), 2, "loop is a loop of links; --out needs a directory's name"),
    (("--out", 300 * "a"), 1, "File name too long"),
    (("--hidden", "2147483647", "2147483647"), 1, "out of memory: the parameters take"),
    (("--out", "tiny.npz/below"), 1, "Not a directory"),
    (("--data", "missing.npz"), None, "missing.npz"),
    (("--data", "cifar100"), None, "cifar100"),
    (("--data", "text.npz"), None, "text.npz"),
    (("--data", "truncated.npz"), None, "truncated.npz"),
    (("--data", "pickled.npz"), None, "pickled.npz"),
    (("--data", "floats.npz"), None, "uint8"),
    (("--data", "flat.npz"), None, "flat.npz"),
    (("--data", "keyless.npz"), None, "test_labels"),
    (("--data", "uneven.npz"), None, "uneven.npz"),
    (("--data", "cifar-10-binary.tar.gz"), None, "cifar-10-binary.tar.gz"),
    (("--data", "cifar10", "--data-dir", "nowhere"), None, "nowhere"),
]


def lay_traps(here: Path, good: Path) -> None:
    """The bad files that BAD names."""
    arrays = dict(np.load(good))
    (here / "full").mkdir()
    (here / "full" / "thesis.txt").write_text("precious")
    (here / "loop").symlink_to("loop")
    (here / "text.npz").write_text("not a zip file")
    (here / "truncated.npz").write_bytes(good.read_bytes()[:1500])
    np.savez(here / "pickled.npz", **{**arrays, "train_labels": np.array([{}] * 24, object)})
    np.savez(here / "floats.npz", **{**arrays, "train_images": arrays["train_images"] / 255})
    np.savez(here / "flat.npz", **{**arrays, "train_images": np.zeros((24, 60), np.uint8)})
    np.savez(here / "keyless.npz", **{k: v for k, v in arrays.items() if k != "test_labels"})
    np.savez(here / "uneven.npz", **{**arrays, "train_labels": arrays["train_labels"][:-1]})
    (here / "cifar-10-binary.tar.gz").write_bytes(b"\x1f\x8b wrong checksum")


@pytest.mark.parametrize(("arguments", "expected", "words"), BAD, ids=lambda v: str(v)[:50])
def test_bad_input_is_one_line_and_leaves_nothing(
    command, tmp_path, tiny_npz, arguments, expected, words
):
    lay_traps(tmp_path, tiny_npz)
    before = sorted(p.name for p in tmp_path.rglob("*"))
    fast = [] if {"--epochs", "--batch-size", "--hidden"} & set(arguments) else FAST
    status, out, err = command(
        *fast, *arguments, data=None if "--data" in arguments else "tiny.npz"
    )
    assert status in ((1, 2) if expected is None else (expected,))
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert words in err
    assert "Traceback" not in out + err
    assert sorted(p.name for p in tmp_path.rglob("*")) == before


def test_at_least_forty_bad_inputs_are_tried():
    assert len(BAD) >= 40


def full_disk(*arguments, **options):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "runs")


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_full_disk_is_one_line_and_leaves_nothing(command, tmp_path, monkeypatch, when):
    monkeypatch.setattr(record.os, "posix_fallocate" if when == "before" else "fsync", full_disk)
    status, out, err = command(*FAST)
    assert status == 1
    assert err.count("\n") == 1
    assert "No space left on device" in err
    assert ("epoch 2/2" in out) == (when == "after")
    assert not [p for p in tmp_path.rglob("*") if p.is_file() and p.name != "tiny.npz"]


def test_overwriting_on_a_full_disk_keeps_the_old_run(command, tmp_path, monkeypatch):
    assert command(*FAST, "--out", "a")[0] == 0
    before = {p.name: p.read_bytes() for p in (tmp_path / "a").iterdir()}
    monkeypatch.setattr(record.os, "fsync", full_disk)
    assert command(*FAST, "--out", "a", "--overwrite")[0] == 1
    assert {p.name: p.read_bytes() for p in (tmp_path / "a").iterdir()} == before


LONG = ("--hidden", "5", "--batch-size", "1", "--epochs", "100000", "--out", "long")


def test_ctrl_c_keeps_what_was_finished_and_says_so(start, tmp_path):
    process = start(*LONG)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    assert "finishing this epoch" in out
    assert "Interrupted after" in out
    result = load_json(tmp_path / "long" / "result.json")
    assert not result["finished"]
    assert 1 <= len(result["epochs"]) < 100000
    assert err == ""


def test_kill_9_leaves_nothing_half_written(start, tmp_path):
    process = start(*LONG)
    time.sleep(0.2)
    process.kill()
    process.communicate(timeout=60)
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["long", "tiny.npz"]  # claimed, empty


def test_help_loads_nothing_slow_and_shows_its_sections(script):
    code = (
        "import runpy, sys; sys.argv = ['run_jax.py', '--help']\n"
        f"try: runpy.run_path({script.__file__!r}, run_name='__main__')\n"
        "except SystemExit: pass\n"
        "print([m for m in ('jax', 'flax', 'matplotlib', 'orbax', 'rich') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout
    assert out.rstrip().endswith("[]")
    for section in (
        "network:",
        "input:",
        "optimizer:",
        "schedule:",
        "run:",
        "data:",
        "output:",
        "checkpoints:",
    ):
        assert f"\n{section}\n" in out
    assert "repair-uniform" in out
    assert max(map(len, out.splitlines())) <= 100


def test_overwriting_that_fails_at_the_last_moment_keeps_the_old_run(
    command, tmp_path, monkeypatch
):
    assert command(*FAST, "--out", "a")[0] == 0
    before = {p.name: p.read_bytes() for p in (tmp_path / "a").iterdir()}
    rename = Path.rename

    def failing(path: Path, target: Path) -> Path:
        if path.parent.name == "a":
            full_disk()
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", failing)
    assert command(*FAST, "--out", "a", "--overwrite")[0] == 1
    assert {p.name: p.read_bytes() for p in (tmp_path / "a").iterdir()} == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "tiny.npz"]


def test_a_symbolic_link_stays_and_its_target_gets_the_run(command, tmp_path):
    (tmp_path / "target").mkdir()
    (tmp_path / "link").symlink_to("target")
    (tmp_path / "dangling").symlink_to("made")
    for name in ("link", "dangling"):
        assert command(*FAST, "--out", name)[0] == 0
        assert (tmp_path / name).is_symlink()
        assert saved_record.load(tmp_path / name)[0]["finished"]
    names = ["dangling", "link", "made", "target", "tiny.npz"]
    assert sorted(p.name for p in tmp_path.iterdir()) == names


def script_process(script, tmp_path: Path, *arguments: str, **options) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-u", script.__file__, "--data", "tiny.npz", *arguments],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def test_a_reader_that_goes_away_costs_no_record(script, tmp_path, tiny_npz):
    process = script_process(script, tmp_path, *FAST, "--out", "a")
    assert process.stdout
    assert process.stderr
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait() == 0
    process.stderr.close()
    assert saved_record.load(tmp_path / "a")[0]["finished"]


@pytest.mark.parametrize(("encoding", "words"), [("ascii", "inputs x 1"), ("latin-1", "s × 1")])
def test_output_that_lacks_letters_has_readable_ones(script, tmp_path, tiny_npz, encoding, words):
    process = script_process(
        script,
        tmp_path,
        *FAST,
        "--input-scale",
        "16",
        "--out",
        "a",
        env={**os.environ, "PYTHONIOENCODING": encoding},
        encoding=encoding,
    )
    out, err = process.communicate(timeout=120)
    assert (process.returncode, err) == (0, "")
    assert "record: a" in out
    assert words in " ".join(out.split())


def test_text_from_outside_is_shown_as_it_is(command, tmp_path):
    status, out, _ = command(*FAST, "--out", "[bold]x[/bold] :smile:")
    assert status == 0
    assert "record: [bold]x[/bold] :smile:\n" in out


NAMES = {
    "a formula": r"a$\frac$",
    "dollars that spare one another": r"we$\foo$ ",
    "bytes that are no text": os.fsdecode(b"bad\xff"),
    "letters without a glyph": "\N{CJK UNIFIED IDEOGRAPH-4E2D}\x01\n\U0001f600",
}


@pytest.mark.by_default("bytes that are no text")
@pytest.mark.parametrize("what", NAMES)
def test_no_name_of_the_data_costs_the_record(script, tmp_path, tiny_npz, what):
    name = NAMES[what]
    tiny_npz.rename(tmp_path / f"{name}.npz")
    again = ("--data", f"{name}.npz", "--checkpoint", "ck", "--no-forecast")  # the last one counts
    process = script_process(script, tmp_path, *FAST, *again, errors="surrogateescape")
    _, err = process.communicate(timeout=120)
    assert (process.returncode, err) == (0, "")
    (directory,) = (tmp_path / "runs").iterdir()
    assert saved_record.load(directory)[0]["data"]["name"] == name


FOREIGN = {  # contents of a directory that --out names, and whether a record may go there
    "a result of another program": {"result.json": '{"accuracy": 0.9}', "thesis.txt": "precious"},
    "a list": {"result.json": "[]", "thesis.txt": "precious"},
    "figures": {"curves.png": "precious"},
    "sums of other files": {"SHA256SUMS": 64 * "0" + "  thesis.txt\n", "thesis.txt": "precious"},
    "a hidden file": {".notes": "precious"},
    "what a write left, and more": {".jaxmlp-incoming/thesis.txt": "precious"},
}


@pytest.mark.parametrize("what", FOREIGN)
@pytest.mark.parametrize("overwrite", [(), ("--overwrite",)])
def test_a_directory_that_is_not_a_runs_is_refused_before_training(
    command, tmp_path, what, overwrite
):
    for name, content in FOREIGN[what].items():
        (tmp_path / "a" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "a" / name).write_text(content)
    before = {p: p.is_file() and p.read_bytes() for p in tmp_path.rglob("*")}
    status, out, err = command(*FAST, "--out", "a", *overwrite)
    assert (status, err.count("\n"), out) == (2, 1, "")
    assert "not a run's" in err or "not ours" in err
    assert {p: p.is_file() and p.read_bytes() for p in tmp_path.rglob("*")} == before


def test_overwriting_touches_nothing_that_is_not_the_records(command, tmp_path, monkeypatch):
    assert command(*FAST, "--out", "a")[0] == 0
    (tmp_path / "a" / "thesis.txt").write_text("precious")
    (tmp_path / "a" / "data").mkdir()
    (tmp_path / "a" / "data" / "steps.npz").write_text("precious")
    (tmp_path / "a" / "link").symlink_to("../tiny.npz")
    inode = (tmp_path / "a").stat().st_ino
    monkeypatch.chdir(tmp_path / "a")
    assert command(*FAST, "--out", ".", "--seed", "1", data="../tiny.npz")[0] == 2
    assert command(*FAST, "--out", ".", "--seed", "1", "--overwrite", data="../tiny.npz")[0] == 0
    assert (tmp_path / "a").stat().st_ino == inode
    assert (tmp_path / "a" / "thesis.txt").read_text() == "precious"
    assert (tmp_path / "a" / "data" / "steps.npz").read_text() == "precious"
    assert (tmp_path / "a" / "link").readlink() == Path("../tiny.npz")
    assert saved_record.load(tmp_path / "a")[0]["experiment"]["seed"] == 1


def test_a_second_run_into_the_same_directory_ends_before_it_trains(command, start, tmp_path):
    process = start(*LONG)
    status, out, err = command(*FAST, "--out", "long")
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=120)
    assert (status, err.count("\n")) == (2, 1)
    assert "another run is at work in long" in err
    assert "epoch" not in out
    assert not saved_record.load(tmp_path / "long")[0]["finished"]


def test_sigterm_keeps_what_was_finished_and_ends_with_75(start, tmp_path):
    process = start(*LONG)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=120)
    epochs = len(saved_record.load(tmp_path / "long")[0]["epochs"])
    line = f"error: terminated after epoch {epochs} of 100000; long keeps them\n"
    assert (process.returncode, err) == (75, line)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_before_the_first_epoch_ends_it_with_a_line(
    command, tmp_path, monkeypatch, number
):
    from jaxmlp.training import run as train_run

    compile_epoch = train_run.compile_epoch

    def signalled(*arguments, **options):
        compiled = compile_epoch(*arguments, **options)
        os.kill(os.getpid(), number)
        return compiled

    monkeypatch.setattr(train_run, "compile_epoch", signalled)
    status, out, err = command(*FAST, "--no-forecast", "--out", "a")
    assert (status, err.count("\n")) == (75 if number == signal.SIGTERM else 130, 1)
    assert "no record was written" in err
    assert "epoch" not in out
    assert sorted(p.name for p in tmp_path.iterdir()) == ["tiny.npz"]


def test_a_signal_that_a_callback_swallows_ends_it_all_the_same(command, tmp_path, monkeypatch):
    from jaxmlp.training import run as train_run

    class Swallowing:
        def __del__(self) -> None:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0)

    compile_epoch = train_run.compile_epoch

    def signalled(*arguments, **options):
        Swallowing()
        return compile_epoch(*arguments, **options)

    monkeypatch.setattr(train_run, "compile_epoch", signalled)
    status, out, err = command(*FAST, "--no-forecast", "--out", "a")
    assert (status, err) == (75, "error: terminated; no record was written\n")
    assert "epoch" not in out


def test_a_second_signal_ends_the_work_at_once(command, tmp_path, monkeypatch):
    from jaxmlp.training.run import Run

    def signalled(run, epoch, result):
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Run, "row", signalled)
    status, _, err = command(*FAST, "--out", "a")
    assert (status, err) == (75, "error: terminated; no record was written\n")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["tiny.npz"]


def test_a_signal_while_the_record_is_written_costs_nothing(command, tmp_path, monkeypatch):
    build = record.build

    def signalled(**options):
        os.kill(os.getpid(), signal.SIGTERM)
        return build(**options)

    monkeypatch.setattr(record, "build", signalled)
    assert command(*FAST, "--out", "a")[0] == 0
    assert saved_record.load(tmp_path / "a")[0]["finished"]


@pytest.mark.parametrize("checkpoint", [(), ("--checkpoint", "ck")])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_after_the_record_is_written_a_signal_says_where_it_is(
    command, tmp_path, monkeypatch, number, checkpoint
):
    from jaxmlp.commands import terminal

    def signalled(*arguments):
        os.kill(os.getpid(), number)
        os.kill(os.getpid(), number)

    monkeypatch.setattr(terminal, "conclude", signalled)
    status, _, err = command(*FAST, "--out", "a", *checkpoint)
    word, expected = ("terminated", 75) if number == signal.SIGTERM else ("interrupted", 130)
    assert (status, err) == (expected, f"error: {word}; the record is in a\n")
    assert saved_record.load(tmp_path / "a")[0]["finished"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_no_number_of_signals_stops_the_writing_of_the_record(
    command, tmp_path, monkeypatch, number
):
    from jaxmlp.record import run_directory

    move_ready = run_directory.move_ready

    def signalled(out):
        move_ready(out)
        if (out / "SHA256SUMS").exists():
            for _ in range(3):
                os.kill(os.getpid(), number)

    monkeypatch.setattr(run_directory, "move_ready", signalled)
    assert command(*FAST, "--out", "a")[0] == 0
    assert saved_record.load(tmp_path / "a")[0]["finished"]


def test_a_damaged_record_is_replaced_only_when_asked(command, tmp_path):
    assert command(*FAST, "--out", "a")[0] == 0
    (tmp_path / "a" / "params.npz").write_bytes(b"")
    status, _, err = command(*FAST, "--out", "a")
    assert (status, err.count("\n")) == (2, 1)
    assert "a holds a damaged run (params.npz is not what SHA256SUMS says); --overwrite" in err
    assert command(*FAST, "--out", "a", "--overwrite")[0] == 0
    assert saved_record.load(tmp_path / "a")[0]["finished"]


@pytest.mark.parametrize("length", [200, 250])
def test_a_long_name_is_as_good_as_another(command, tmp_path, length):
    assert command(*FAST, "--out", length * "a")[0] == 0
    (tmp_path / "tiny.npz").rename(tmp_path / (length * "b" + ".npz"))
    assert command(*FAST, data=length * "b" + ".npz")[0] == 0

"""Sweeps: each run is what it is alone, whatever trains beside it, and on however many devices."""

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxmlp import grid
from jaxmlp.commands import sweep as command
from jaxmlp.commands import sweep_figures as figures_command
from jaxmlp.experiment import Experiment
from jaxmlp.forecasting import curvature
from jaxmlp.forecasting import rehearsal as forecast
from jaxmlp.record import metrics, sweep_figures, sweep_places
from jaxmlp.sweeps import sweep
from jaxmlp.sweeps.blocks import blocks, one_scale_per_block
from jaxmlp.sweeps.forecasts import Computed, compute_sharpness, forecasts
from jaxmlp.sweeps.job import summary
from jaxmlp.training.run import Run, prepare

SCRIPT = Path(__file__).parent.parent / "scripts" / "sweep.py"
TINY = {"hidden": (5,), "batch_size": 4, "epochs": 2}
FLAGS = ["--hidden", "5", "--batch-size", "4", "--epochs", "2"]
AXES = ["--input-scale", "1", "255", "--learning-rate", "log:1e-3:1:4", "--seed", "0..2"]
COLUMNS = ("loss", "correct", "grad_norm", "dead")


def spanned(**changes) -> list[Experiment]:
    axes = [
        grid.axis("learning-rate", ["0.001", "0.1,0.01", "0.5"]),
        grid.axis("init-scale.1", ["0.5", "2"]),
        grid.axis("input-scale", ["1", "255"]),
    ]
    return grid.experiments(Experiment(**{**TINY, **changes}), axes)


def alone(many: sweep.Sweep, run: sweep.Finished) -> list[metrics.EpochResult]:
    return list(Run(many.experiment_of(run), many.dataset).epochs())


# ---- the same runs


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"optimizer": "adam", "bias": True, "schedule": ("cosine", "constant")},
        {"precision": "float64", "hidden": (6,), "preprocessing": "center"},
        {"hidden": (), "optimizer": "lion"},
    ],
    ids=["sgd", "adam with biases", "float64", "linear"],
)
def test_one_after_the_other_each_run_is_bit_for_bit_what_it_is_alone(changes, tiny_dataset):
    settings = (
        spanned(**changes)
        if changes.get("hidden", (5,))
        else [Experiment(**{**TINY, **changes, "learning_rate": (rate,)}) for rate in (1e-3, 1e-2)]
    )
    many = sweep.Sweep(settings, [3, 0], tiny_dataset, size=5, side_by_side=False)
    finished = [run for chunk in many.chunks() for run in many.train(chunk)]
    assert sorted((run.setting, run.seed) for run in finished) == sorted(
        (i, j) for i in range(len(settings)) for j in (0, 1)
    )
    for run in finished:
        for mine, expected in zip(run.epochs, alone(many, run), strict=True):
            for name in COLUMNS:
                np.testing.assert_array_equal(
                    getattr(mine.steps, name), getattr(expected.steps, name)
                )
            for own, other in zip(mine.test, expected.test, strict=True):
                np.testing.assert_array_equal(own, other)


@pytest.mark.parametrize("shared", [True, False])
def test_side_by_side_they_differ_by_rounding(shared, tiny_dataset):
    scale = ["3"] if shared else ["1", "255"]
    rates = f"log:1e-3:1:{8 if shared else 4}"
    axes = [grid.axis("learning-rate", [rates]), grid.axis("input-scale", scale)]
    many = sweep.Sweep(
        grid.experiments(Experiment(**TINY), axes), [0, 1], tiny_dataset, side_by_side=True
    )
    assert many.program.shared_scale is shared
    assert len(many.blocks) == 1
    for run in many.train(many.chunks()[0]):
        first, expected = run.epochs[0].steps.loss[:2], alone(many, run)[0].steps.loss[:2]
        np.testing.assert_allclose(first, expected, rtol=1e-5)


@pytest.mark.parametrize("side_by_side", [True, False])
def test_a_run_that_blows_up_does_not_disturb_the_others(side_by_side, tiny_dataset):
    rates = ["0.01", "0.02", "0.03", "1e30"]
    losses = []
    for words in (rates, [*rates[:3], "0.04"]):
        settings = grid.experiments(Experiment(**TINY), [grid.axis("learning-rate", words)])
        many = sweep.Sweep(settings, [0], tiny_dataset, side_by_side=side_by_side)
        (chunk,) = many.chunks()
        finished = many.train(chunk)
        assert [run.finite for run in finished[:3]] == [True] * 3
        losses.append([[epoch.steps.loss for epoch in run.epochs] for run in finished])
    np.testing.assert_array_equal(losses[0][:3], losses[1][:3])
    assert not np.isfinite(losses[0][3]).all()
    assert np.isfinite(losses[1][3]).all()


@given(
    st.lists(st.sampled_from([1.0, 16.0, 255.0]), min_size=1, max_size=40),
    st.integers(1, 7),
    st.integers(1, 50),
)
def test_blocks_hold_every_run_in_equal_rectangles(scales, seeds, size):
    found = blocks(scales, seeds, size)
    runs = {(i, j) for block in found for i in block.settings for j in block.seeds}
    assert runs == {(i, j) for i in range(len(scales)) for j in range(seeds)}
    assert len({(len(block.seeds), len(block.settings)) for block in found}) == 1
    assert len(found[0].seeds) * len(found[0].settings) <= size
    if one_scale_per_block(scales):
        assert all(len({scales[i] for i in block.settings}) == 1 for block in found)


def test_settings_that_need_two_programs_are_refused(tiny_dataset):
    settings = [Experiment(**TINY), Experiment(**{**TINY, "epochs": 3})]
    with pytest.raises(ValueError, match="differ only in what is traced"):
        sweep.Sweep(settings, [0], tiny_dataset)


def test_the_block_is_chosen_from_the_compilers_own_account(tiny_dataset, monkeypatch):
    monkeypatch.setattr(sweep, "MOST_RUNS_PER_BLOCK", {})

    def size(free: int) -> int:
        monkeypatch.setattr(sweep, "free_memory", lambda: free)
        settings = grid.experiments(
            Experiment(**TINY), [grid.axis("learning-rate", ["log:1e-3:1:40"])]
        )
        return sweep.Sweep(settings, [0], tiny_dataset, side_by_side=True).size

    sizes = [size(free) for free in (1, 60_000, 120_000, 10**12)]
    assert sizes == sorted(sizes)
    assert sizes[0] == 1
    assert 1 < sizes[1] < sizes[2] < sizes[3] == 40
    assert 1.5 < sizes[2] / sizes[1] < 3


# ---- what could be foretold


@pytest.mark.parametrize("side_by_side", [False, True])
def test_forecasts_are_those_of_the_single_runs(side_by_side, tiny_dataset):
    settings = spanned(weight_decay=(0.1,))
    many = sweep.Sweep(settings, [0, 1], tiny_dataset, size=10, side_by_side=side_by_side)
    known: Computed = {}
    finished, found = [], []
    for chunk in many.chunks():
        trained = many.train(chunk)
        finished += trained
        compute_sharpness(many, chunk, trained, known)
        found += forecasts(many, trained, known)
    for run, mine in list(zip(finished, found, strict=True))[::5]:
        expected = forecast.forecast(many.experiment_of(run), tiny_dataset)
        assert mine.sharpness.value == pytest.approx(expected.sharpness.value, rel=1e-5)
        assert mine.sharpness[1:] == expected.sharpness[1:]
        assert mine.diverges == pytest.approx(expected.diverges, rel=1e-2)
        assert mine.fails == pytest.approx(expected.fails, rel=1e-2)
    # Two of the three rates per layer are equal but for a common factor.
    assert len(known) == len(finished) * 2 // 3


def test_a_sharpness_that_is_not_settled_is_the_single_runs(tiny_dataset, monkeypatch):
    many = sweep.Sweep([Experiment(**TINY)], [3], tiny_dataset)
    (chunk,) = many.chunks()
    monkeypatch.setattr(curvature.Found, "settled", lambda found: False)
    known: Computed = {}
    compute_sharpness(many, chunk, many.train(chunk), known)
    ready = prepare(Experiment(**TINY, seed=3, learning_rate=(1.0,)), tiny_dataset)
    batches = curvature.sample(next(ready.order))
    assert [*known.values()] == [
        curvature.with_restarts(many.experiment, ready, batches),
    ]


def test_rates_whose_ratio_is_no_float32_have_a_forecast_too(tiny_dataset):
    rates = {"learning_rate": (1e-30, 0.01), "bias_learning_rate": (1e10,)}
    experiment = Experiment(hidden=(5,), bias=True, batch_size=4, epochs=1, **rates)
    many = sweep.Sweep([experiment], [0], tiny_dataset)
    (chunk,) = many.chunks()
    known: Computed = {}
    (run,) = many.train(chunk)
    compute_sharpness(many, chunk, [run], known)
    (mine,) = forecasts(many, [run], known)
    expected = forecast.forecast(experiment, tiny_dataset)
    assert mine.sharpness.value == pytest.approx(expected.sharpness.value, rel=1e-3)


# ---- the command


def tables(out):
    return pq.read_table(out / "runs.parquet"), pq.read_table(out / "curves.parquet")


def start(tiny_npz, out, *more: str, devices: int = 1, flags=(*FLAGS, *AXES)) -> subprocess.Popen:
    environment = dict(os.environ, XLA_FLAGS=f"--xla_force_host_platform_device_count={devices}")
    return subprocess.Popen(
        [
            sys.executable,
            str(SCRIPT),
            "--data",
            str(tiny_npz),
            *flags,
            "--out",
            str(out),
            *more,
        ],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def sweep_in_process(tiny_npz, out, *more: str, flags=(*FLAGS, *AXES)) -> None:
    command.main(["--data", str(tiny_npz), *flags, "--out", str(out), *more])


@pytest.mark.smoke
def test_the_table_says_of_each_run_what_its_record_says(tiny_npz, tiny_dataset, tmp_path):
    sweep_in_process(tiny_npz, tmp_path / "s")
    runs, curves = tables(tmp_path / "s")
    assert len(runs) == 24
    assert len(curves) == 48
    row = runs.to_pylist()[17]  # scale 255, the second rate, seed 2
    assert (row["input_scale"], row["seed"]) == (255.0, 2)
    experiment = Experiment(**TINY, input_scale=255.0, learning_rate=(0.01,), seed=2)
    assert row["experiment"] == experiment.sha256
    run = Run(experiment, tiny_dataset)
    epochs = [run.row(i + 1, result) for i, result in enumerate(run.epochs())]
    own = [one for one in curves.to_pylist() if one.pop("run") == 17]
    assert own == epochs
    for name in ("train_loss", "train_accuracy", "test_loss", "test_accuracy"):
        assert row[name] == epochs[-1][name]
    assert row["canonical_learning_rate"] == pytest.approx(2.55)
    assert row["canonical_init_scale_1"] == pytest.approx(255**0.5)
    assert row["dead_1"] == epochs[-1]["dead"][0]
    said = json.loads((tmp_path / "s" / "sweep.json").read_text())
    assert said["finished"] is True
    assert said["experiment"]["epochs"] == 2
    assert {"heat.png", "plane.png", "foretold.png"} < {p.name for p in (tmp_path / "s").iterdir()}
    assert not (tmp_path / "s" / "parts").exists()


@pytest.mark.parametrize("counts", [(2,), pytest.param((4, 8), marks=pytest.mark.slow)])
def test_any_number_of_devices_gives_the_same_table(counts, tiny_npz, tmp_path):
    jobs = [start(tiny_npz, tmp_path / str(devices), devices=devices) for devices in counts]
    sweep_in_process(tiny_npz, tmp_path / "one")
    for devices, job in zip(counts, jobs, strict=True):
        said, _ = job.communicate(timeout=120)
        assert job.returncode == 0, said
        assert f"{devices} cpu devices" in said
        for mine, expected in zip(
            tables(tmp_path / str(devices)), tables(tmp_path / "one"), strict=True
        ):
            assert mine.equals(expected)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def job_of(count: int, tiny_npz, out, devices: int, **options) -> list[subprocess.Popen]:
    address = f"127.0.0.1:{free_port()}"
    return [
        start(
            tiny_npz,
            out,
            "--coordinator",
            address,
            "--processes",
            str(count),
            "--process-id",
            str(index),
            devices=devices,
            **options,
        )
        for index in range(count)
    ]


@pytest.mark.by_default("2-2-float64")
@pytest.mark.parametrize(("count", "devices", "precision"), [(2, 2, "float64"), (4, 1, "float32")])
def test_any_number_of_processes_gives_the_same_table(
    count, devices, precision, tiny_npz, tmp_path
):
    flags = [*FLAGS, *AXES, "--precision", precision]
    processes = job_of(count, tiny_npz, tmp_path / "many", devices, flags=flags)
    sweep_in_process(tiny_npz, tmp_path / "one", flags=flags)
    said = [process.communicate(timeout=180)[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * count, said
    assert f"{count * devices} cpu devices of {count} processes" in said[0]
    for mine, expected in zip(tables(tmp_path / "many"), tables(tmp_path / "one"), strict=True):
        assert mine.equals(expected)


def test_processes_with_different_flags_are_refused(tiny_npz, tmp_path):
    address = f"127.0.0.1:{free_port()}"
    processes = [
        start(
            tiny_npz,
            tmp_path / "s",
            "--coordinator",
            address,
            "--processes",
            "2",
            "--process-id",
            str(index),
            flags=[*FLAGS, "--learning-rate", rate],
        )
        for index, rate in enumerate(("0.1", "0.2"))
    ]
    for process in processes:
        said, _ = process.communicate(timeout=120)
        assert process.returncode == 2
        assert "error: the processes were started with different flags or data" in said
    assert not (tmp_path / "s").exists()


def test_processes_take_the_smallest_of_their_blocks(tiny_dataset, monkeypatch):
    monkeypatch.setattr(sweep.processes, "gather", lambda array: np.array([array, 3]))
    assert sweep.Sweep(spanned(), [0], tiny_dataset).size == 3


LONG = (*FLAGS[:-1], "100000", "--learning-rate", "log:1e-3:1:8", "--no-forecast")


@pytest.mark.by_default("1")
@pytest.mark.parametrize("victim", [0, 1])
def test_a_process_that_is_killed_ends_the_others_in_a_line(victim, tiny_npz, tmp_path):
    processes = job_of(2, tiny_npz, tmp_path / "s", 1, flags=LONG)
    until = time.monotonic() + 120
    while not (tmp_path / "s" / "sweep.json").exists():
        assert time.monotonic() < until
        time.sleep(0.1)
    time.sleep(3)  # into the training
    processes[victim].kill()
    said, _ = processes[1 - victim].communicate(timeout=90)
    processes[victim].communicate()
    assert "Traceback" not in said
    if victim == 0 and processes[1].returncode == -signal.SIGABRT:  # JAX was first to notice
        assert "another task died" in said
        return
    assert processes[1 - victim].returncode == 1, said
    assert "error: another of the 2 processes has gone" in said


@pytest.mark.smoke
def test_processes_that_do_not_come_are_named(monkeypatch):
    from jaxmlp.device import processes as devices
    from jaxmlp.device import rendezvous
    from jaxmlp.errors import JobError

    monkeypatch.setattr(rendezvous, "PATIENCE", 1)
    address = f"127.0.0.1:{free_port()}"
    with pytest.raises(JobError, match=r"process 1 did not come .* start all 3"):
        devices.distribute(address, 3, 0, False)
    with pytest.raises(JobError, match="does not answer within 1 s"):
        devices.distribute(address, 3, 1, False)
    for arguments in ((address, None, 0), (address, 2, 2), ("nowhere", 2, 0), (None, 2, 0)):
        with pytest.raises(ValueError, match="--"):
            devices.distribute(*arguments, False)


def test_devices_that_share_a_batch_give_the_same_to_rounding(tiny_npz, tmp_path):
    sweep_in_process(tiny_npz, tmp_path / "one")
    job = start(tiny_npz, tmp_path / "two", "--data-parallel", "2", devices=4)
    said, _ = job.communicate(timeout=120)
    assert job.returncode == 0, said
    assert "each batch on 2" in said
    mine, expected = (
        {row["run"]: row for row in tables(tmp_path / name)[0].to_pylist()}
        for name in ("two", "one")
    )
    calm = [run for run, row in expected.items() if row["outcome"] == "stalled"]
    assert len(calm) >= 6
    for run in calm:
        for name in ("train_loss", "test_loss"):
            assert mine[run][name] == pytest.approx(expected[run][name], rel=1e-4)


# ---- crashes


@pytest.mark.slow
def test_a_sweep_that_is_killed_again_and_again_ends_as_if_it_was_not(tiny_npz, tmp_path):
    flags = (
        *FLAGS[:-1],
        "40",
        "--learning-rate",
        "log:1e-3:1:8",
        "--seed",
        "0..3",
        "--runs-per-device",
        "2",
        "--no-forecast",
    )
    sweep_in_process(tiny_npz, tmp_path / "whole", flags=flags)
    draw, out = random.Random(0), tmp_path / "killed"
    foreign = ("notes.txt", "sweep.json.partial", "parts/00000000-00000015.parquet")
    for _ in range(4):
        job = start(tiny_npz, out, "--resume", flags=flags)
        until = time.monotonic() + 60
        while not (out / "sweep.json").exists() and time.monotonic() < until:
            time.sleep(0.05)
        time.sleep(draw.uniform(0, 3))
        job.kill()
        job.communicate()
        (out / "parts").mkdir(exist_ok=True)
        for name in foreign:
            (out / name).write_bytes(b"precious")
    job = start(tiny_npz, out, "--resume", flags=flags)
    said, _ = job.communicate(timeout=120)
    assert job.returncode == 0, said
    for name in foreign:
        assert (out / name).read_bytes() == b"precious"
        (out / name).unlink()
    (out / "parts").rmdir()
    for mine, expected in zip(tables(out), tables(tmp_path / "whole"), strict=True):
        assert mine.equals(expected)
    assert {path.name for path in out.iterdir()} == {
        path.name for path in (tmp_path / "whole").iterdir()
    }


def unfinished(tiny_npz, out, monkeypatch) -> int:
    """A sweep of which some chunks are there; how many runs."""
    train_chunk, calls = sweep.Sweep.train, []

    def interrupted(self, *arguments):
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return train_chunk(self, *arguments)

    with monkeypatch.context() as context:
        context.setattr(sweep.Sweep, "train", interrupted)
        with pytest.raises(SystemExit) as ended:
            sweep_in_process(tiny_npz, out, "--runs-per-device", "4")
    assert ended.value.code == 130
    return sum(len(pq.read_table(path)) for path in (out / "parts").iterdir())


def test_only_what_is_missing_is_trained_again(tiny_npz, tmp_path, monkeypatch, capsys):
    out = tmp_path / "s"
    assert unfinished(tiny_npz, out, monkeypatch) == 12
    assert "interrupted; finished chunks are kept; --resume goes on" in capsys.readouterr().err
    damaged = sorted((out / "parts").iterdir())[1]
    damaged.write_bytes(b"PAR1 cut off")
    sweep_in_process(tiny_npz, out, "--resume")
    said = capsys.readouterr().out
    assert "8 are done already" in said
    assert f"{damaged} is damaged, or not this sweep's: it is not used, and left there" in said
    assert f"{damaged.parent} stays: 1 file in it not the sweep's" in said
    assert damaged.read_bytes() == b"PAR1 cut off"
    damaged.unlink()
    sweep_in_process(tiny_npz, tmp_path / "whole")
    assert tables(out)[0].equals(tables(tmp_path / "whole")[0])
    capsys.readouterr()
    sweep_in_process(tiny_npz, out, "--resume")
    assert "is finished; nothing is left to do" in capsys.readouterr().out
    assert {p.name for p in out.iterdir()} == {p.name for p in (tmp_path / "whole").iterdir()}


def test_ctrl_c_again_and_again_is_one_line(tiny_npz, tmp_path):
    out, flags = tmp_path / "s", (*FLAGS[:-1], "100000", "--learning-rate", "0.1", "0.2")
    job = start(tiny_npz, out, "--no-forecast", flags=flags)
    while not (out / "parts").exists():
        assert job.poll() is None
        time.sleep(0.05)
    time.sleep(1)  # into the training
    while job.poll() is None:
        job.send_signal(signal.SIGINT)
        time.sleep(0.02)
    said, _ = job.communicate(timeout=60)
    assert job.returncode == 130, said
    assert "Traceback" not in said
    assert said.splitlines()[-1] == f"error: interrupted; {command.KEPT}"


def test_a_reader_that_goes_does_not_end_a_sweep(tiny_npz, tmp_path):
    out = tmp_path / "s"
    job = start(tiny_npz, out, "--runs-per-device", "1")
    assert job.stdout is not None
    job.stdout.close()
    assert job.wait(timeout=120) == 0
    assert len(tables(out)[0]) == 24
    assert (out / "plane.png").exists()


def test_square_brackets_are_no_markup(tiny_npz, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "[red]data[").mkdir()
    data = tiny_npz.rename(tmp_path / "[red]data[" / "[bold]tiny.npz")
    command.main(["--data", str(data), *FLAGS, "--no-forecast", "--out", "a[b][/red]c"])
    said = capsys.readouterr().out
    assert "sweep: a[b][/red]c\n" in said
    assert "[bold]tiny.npz" in said


def test_what_was_foretold_is_counted_by_course():
    def runs(*courses):
        return pa.Table.from_pylist(
            [
                {
                    "run": 0,
                    "seed": 0,
                    "outcome": "trained",
                    "test_accuracy": 0.5,
                    "course": course,
                    "foretold_course": said,
                }
                for said, course in courses
            ]
        )

    always = runs(*[("stable", "stable")] * 3)
    assert summary(always, []).endswith("foretold correctly: stable 3 of 3")
    mixed = runs(*[("stable", "stable")] * 9, ("fails", "stable"), ("stable", "fails"))
    assert summary(mixed, []).endswith("foretold correctly: stable 9 of 10, fails 0 of 1")
    assert "foretold" not in summary(runs((None, "stable")), [])


@pytest.mark.parametrize(
    ("number", "status", "word"),
    [(signal.SIGTERM, 75, "terminated"), (signal.SIGINT, 130, "interrupted")],
)
@pytest.mark.parametrize("swallowed", [False, True])
def test_signals_end_a_sweep_with_their_own_status(
    number, status, word, swallowed, tiny_npz, tmp_path, monkeypatch, capsys
):
    compiled_epoch, calls = sweep.Sweep._order, []

    def signalled(self, *arguments):
        calls.append(1)
        try:
            os.kill(os.getpid(), number)
        except BaseException:
            if not swallowed:  # as JAX's callbacks do
                raise
        return compiled_epoch(self, *arguments)

    monkeypatch.setattr(sweep.Sweep, "_order", signalled)
    before = signal.getsignal(number)
    with pytest.raises(SystemExit) as ended:
        sweep_in_process(tiny_npz, tmp_path / "s", flags=[*FLAGS[:-1], "6", *AXES])
    assert ended.value.code == status
    assert len(calls) == 1 + swallowed  # no epoch is trained after it
    assert f"error: {word}; finished chunks are kept; --resume goes on" in capsys.readouterr().err
    assert signal.getsignal(number) is before


def test_what_a_crash_at_the_very_end_leaves_is_cleared(tiny_npz, tmp_path, capsys):
    out = tmp_path / "s"
    sweep_in_process(tiny_npz, out)
    names = {path.name for path in out.iterdir()}
    (out / "parts").mkdir()
    (out / "plane.png").unlink()
    key = json.loads((out / "sweep.json").read_text())["identity"][:16]
    (out / f".runs.parquet.{key}.partial").write_bytes(b"PAR1 cut")
    sweep_in_process(tiny_npz, out, "--resume")
    assert {path.name for path in out.iterdir()} == names
    assert "is finished; nothing is left to do" in capsys.readouterr().out


def test_one_command_at_a_time_works_in_a_directory(tiny_npz, tmp_path):
    out = tmp_path / "s"
    first = start(tiny_npz, out, "--resume", flags=LONG)
    while not (out / "parts").exists():
        time.sleep(0.05)
    second = start(tiny_npz, out, "--resume", flags=LONG)
    said, _ = second.communicate(timeout=60)
    first.kill()
    first.communicate()
    assert second.returncode == 2
    assert f"error: another process is at work in {out}" in said


def test_parts_of_another_sweep_are_not_taken_for_ones_own(tiny_npz, tmp_path, monkeypatch):
    out = tmp_path / "s"
    unfinished(tiny_npz, out, monkeypatch)
    (out / "sweep.json").unlink()
    other = [*FLAGS, "--learning-rate", "0.1", "0.2", "0.3"]
    with pytest.raises(SystemExit):  # it does not even look like a sweep
        sweep_in_process(tiny_npz, out, "--resume", flags=other)
    names = sorted(path.name for path in (out / "parts").iterdir())
    parts = [(out / "parts" / name).read_bytes() for name in names]
    for path in (out / "parts").iterdir():
        path.unlink()
    with monkeypatch.context() as patched:
        patched.setattr(sweep.Sweep, "train", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(SystemExit):
            sweep_in_process(tiny_npz, out, "--resume", flags=other)
    for name in names:
        (out / "parts" / name).write_bytes(parts[0])
    sweep_in_process(tiny_npz, out, "--resume", flags=other)
    assert tables(out)[0]["learning_rate_1"].to_pylist() == [0.1, 0.2, 0.3]
    assert sorted(path.name for path in (out / "parts").iterdir()) == names


def test_a_refused_overwrite_leaves_what_was_there(tiny_npz, tmp_path):
    out = tmp_path / "s"
    sweep_in_process(tiny_npz, out)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    with pytest.raises(SystemExit):
        sweep_in_process(tiny_npz, out, "--overwrite", "--precision", "tf32")
    assert before == {path.name: path.read_bytes() for path in out.iterdir()}
    sweep_in_process(tiny_npz, out, "--overwrite")
    assert tables(out)[0].num_rows == 24


def test_what_stands_there_is_not_touched_unasked(tiny_npz, tmp_path, monkeypatch, capsys):
    out = tmp_path / "s"
    unfinished(tiny_npz, out, monkeypatch)
    capsys.readouterr()
    other = [*FLAGS, "--learning-rate", "0.1", "0.2"]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("precious")
    (tmp_path / "upper" / "parts").mkdir(parents=True)
    (tmp_path / "upper" / "parts" / "thesis.tex").write_text("precious")
    cases = [
        (out, [*FLAGS, *AXES], "holds an unfinished sweep; --overwrite replaces it, --resume"),
        (out, other, "holds another sweep (its axes are not those asked for)"),
        (out, [*other, "--resume"], "holds another sweep"),
        (out, [*FLAGS[:-1], "9", *AXES], "holds another sweep (its epochs is 2, asked is 9)"),
        (out, [*FLAGS, *AXES, "--resume", "--no-forecast"], "holds another sweep (its forecast"),
        (tmp_path / "mine", other, "holds files that are not a sweep's"),
        (tmp_path / "upper", other, "holds files that are not a sweep's"),
        (tmp_path / "mine" / "thesis.tex", other, "is a file"),
    ]
    for where, flags, words in cases:
        with pytest.raises(SystemExit) as ended:
            sweep_in_process(tiny_npz, where, flags=flags)
        assert ended.value.code == 2
        error = capsys.readouterr().err
        assert words in error
        assert error.count("\n") == 1
    assert len(list((out / "parts").iterdir())) == 3
    sweep_in_process(tiny_npz, out, "--overwrite", flags=other)
    assert len(tables(out)[0]) == 2


# ---- flags


BAD = [
    (["--learning-rate", ".1", "0.1"], "--learning-rate 0.1 comes twice; give every value once"),
    (["--learning-rate.3", "0.1"], "--learning-rate.3: the network has layers 1 to 2"),
    (["--batch-size", "4", "6"], "6 is one value too many: a sweep does not vary what it follows"),
    (["--learning-rate.1", "0.1", "--epochs", "2", "3"], "3 is one value too many"),
    (["--learning-rate.0", "0.1"], "unrecognized arguments: --learning-rate.0"),
    (["--case", "scaled-lr", "--input-scale", "51", "255"], "give one --input-scale"),
    (["--sweep-seed", "1"], "--sweep-seed is of the draws; give --random N"),
    (["--learning-rate", "log:1e-3:1:900000", "--seed", "0..1"], "1,800,000 runs are more than"),
    (["--precision", "tf32"], "precision tf32 does not exist on cpu"),
    (["--learning-rat", "1"], "unrecognized arguments: --learning-rat"),
    (["--learning-rate.9", "1"], "the network has layers 1 to 2"),
    (["--data-parallel", "3"], "data parallel 3 does not divide the 1 devices; choose 1"),
    (["--runs-per-device", "0"], "--runs-per-device 0 must be at least 1"),
    (["--random", "0"], "--random 0 must be at least 1"),
    (["--batch-size", "5"], "batch size 5 does not divide 24"),
    (["--distributed"], "--distributed: no cluster is found"),
    (["--processes", "2"], "belong together"),
    (["--zip", "--random", "3"], "not allowed with"),
]


@pytest.mark.parametrize(("more", "words"), BAD)
def test_bad_flags_are_one_line(more, words, tiny_npz, tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        sweep_in_process(tiny_npz, tmp_path / "s", *more, flags=FLAGS)
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1
    assert not (tmp_path / "s").exists()


def test_a_case_is_swept_with_its_own_settings(tiny_npz, tmp_path):
    flags = ["--case", "scaled-lr", "--input-scale", "51", *FLAGS, "--seed", "0", "1"]
    sweep_in_process(tiny_npz, tmp_path / "s", "--no-forecast", flags=flags)
    runs = tables(tmp_path / "s")[0]
    assert set(runs["learning_rate_1"].to_pylist()) == {0.02 / 51}
    assert runs["foretold_course"].null_count == 2


# ---- figures


@pytest.mark.parametrize(
    ("flags", "names"),
    [
        (
            ["--random", "9", "--learning-rate", "log:1e-3:1", "--init-scale", "log:0.1:10"],
            {"heat.png", "plane.png", "foretold.png"},
        ),
        (
            ["--weight-decay", "0", "1e-4", "1e-3", "--learning-rate", "0.1", "1e30"],
            {"heat.png", "plane.png"},
        ),
        (["--zip"], {"plane.png"}),
        (["--learning-rate.2", "0", "0.1"], set()),  # frozen: no canonical form, S of 0
        (["--learning-rate", "0.1"], {"plane.png"}),
    ],
)
def test_figures_are_those_that_the_runs_allow(flags, names, tiny_npz, tmp_path):
    sweep_in_process(tiny_npz, tmp_path / "s", flags=[*FLAGS, *flags])
    drawn = {path.name for path in (tmp_path / "s").glob("*.png")}
    assert names <= drawn
    assert ("plane.png" in drawn) == ("plane.png" in names)


def test_columns_that_only_go_together_are_one_axis(tiny_npz, tmp_path, capsys):
    sweep_in_process(tiny_npz, tmp_path / "s")
    runs = tables(tmp_path / "s")[0]
    assert sweep_figures.swept(runs) == ["input_scale", "learning_rate_1"]
    figures_command.main(
        [
            str(tmp_path / "s"),
            "--axes",
            "learning_rate_2",
            "seed",
            "--value",
            "spike",
            "--out",
            str(tmp_path / "f"),
        ]
    )
    assert (tmp_path / "f" / "heat.png").stat().st_size > 5000
    capsys.readouterr()
    for arguments, words in (
        ([str(tmp_path / "s"), "--value", "nonsense"], "nonsense is no column of numbers"),
        ([str(tmp_path / "s"), "--value", "first_nonfinite_step"], "is nowhere finite"),
        ([str(tmp_path)], "is no sweep"),
    ):
        with pytest.raises(SystemExit) as ended:
            figures_command.main(arguments)
        assert ended.value.code == 2
        assert words in capsys.readouterr().err


def test_an_axis_with_a_zero_is_one_axis(tiny_npz, tmp_path):
    axes = ["--weight-decay", "0", "1e-4", "1e-3", "--learning-rate", "0", "0.1"]
    sweep_in_process(tiny_npz, tmp_path / "s", flags=[*FLAGS, *axes])
    assert sweep_figures.swept(tables(tmp_path / "s")[0]) == ["learning_rate_1", "weight_decay_1"]


def test_cells_meet_half_way_on_their_axis():
    np.testing.assert_allclose(sweep_places.edges(np.array([1.0, 100.0])), [0.1, 10, 1000])
    np.testing.assert_allclose(sweep_places.edges(np.array([0.0, 1.0, 3.0])), [-0.5, 0.5, 2, 4])

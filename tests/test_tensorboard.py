"""--tensorboard: TensorBoard's own reader gives back what was written, and no record is lost."""

import errno
import json
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jaxmlp import atomic
from jaxmlp.record import saved_record, tensorboard

pytest.importorskip("tensorboardX", reason="comes with jaxmlp[tensorboard]")
FAST = ("--hidden", "5", "--batch-size", "8", "--epochs", "2", "--no-forecast")
NONFINITE = ("--learning-rate", "1e20")
DEEP = ("--hidden", "5", "3", "--batch-size", "8", "--epochs", "2", "--no-forecast")


def reader(directory: Path) -> Any:
    """TensorBoard's reader of a directory, which keeps everything."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # tensorboard's own
        accumulator = pytest.importorskip(
            "tensorboard.backend.event_processing.event_accumulator",
            reason="comes with jaxmlp[dev]",
        )
        read = accumulator.EventAccumulator(str(directory), {"scalars": 0, "images": 0})
        read.Reload()
    return read


def scalars(read: Any) -> dict[str, list[tuple[int, float]]]:
    """Steps and values by tag."""
    return {
        tag: [(event.step, event.value) for event in read.Scalars(tag)]
        for tag in read.Tags()["scalars"]
    }


def hyperparameters(read: Any) -> tuple[dict[str, Any], set[str]]:
    """What the hparams plugin is told: values by name, and the tags of the metrics."""
    from tensorboard.plugins.hparams import plugin_data_pb2

    message = getattr(plugin_data_pb2, "HParamsPluginData")  # noqa: B009, made when it is run
    tags = read.summary_metadata
    data = {tag: tags[tag].plugin_data for tag in tags if tag.startswith("_hparams_/")}
    parsed = {tag: message.FromString(plugin.content) for tag, plugin in data.items()}
    assert {plugin.plugin_name for plugin in data.values()} == {"hparams"}
    assert parsed["_hparams_/session_end_info"].session_end_info.status == 1  # success
    started = parsed["_hparams_/session_start_info"].session_start_info.hparams
    values = {name: getattr(v, str(v.WhichOneof("kind"))) for name, v in started.items()}
    experiment = parsed["_hparams_/experiment"].experiment
    assert {info.name for info in experiment.hparam_infos} == set(values)
    return values, {info.name.tag for info in experiment.metric_infos}


def same(written: Any, expected: Any) -> None:
    """Equal in every bit of float32, NaN and infinities included."""
    there = np.array([value for _, value in written], np.float32)
    np.testing.assert_array_equal(there, np.asarray(expected, np.float64).astype(np.float32))


@pytest.mark.parametrize("settings", [FAST, DEEP, (*FAST, *NONFINITE)])
def test_tensorboard_reads_back_every_number_of_the_record(command, tmp_path, settings):
    status, out, err = command(*settings, "--tensorboard", "tb", "--out", "runs/a")
    assert (status, err) == (0, "")
    assert "tensorboard: tb/a\n" in out
    record, steps, _ = saved_record.load(tmp_path / "runs" / "a")
    read = scalars(reader(tmp_path / "tb" / "a"))
    layers = [layer["name"] for layer in record["layers"]]
    for name in ("train_loss", "train_accuracy", "test_loss", "test_accuracy"):
        same(read[f"epoch/{name}"], [float(row[name]) for row in record["epochs"]])
    same(read["step/loss"], steps["loss"])
    for i, layer in enumerate(layers):
        same(read[f"step/grad_norm/{layer}"], steps["grad_norm"][:, i])
    for i, layer in enumerate(layers[:-1]):
        same(read[f"step/dead/{layer}"], steps["dead"][:, i])
        for name in ("dead", "silent"):
            same(read[f"epoch/{name}/{layer}"], [row[name][i] for row in record["epochs"]])
    assert len(read) == 4 + 1 + len(layers) + 3 * (len(layers) - 1)
    for tag, written in read.items():
        numbers = [1, 2] if tag.startswith("epoch/") else [1, 2, 3, 4, 5, 6]
        assert [step for step, _ in written] == numbers
    if NONFINITE[0] in settings:
        assert not np.isfinite(steps["loss"]).all()


def test_settings_and_outcome_are_the_hparams_plugins(command, tmp_path):
    rates = ("--learning-rate", "0.1", "0.2")
    assert command(*FAST, *rates, "--tensorboard", "tb", "--out", "a")[0] == 0
    values, metrics = hyperparameters(reader(tmp_path / "tb" / "a"))
    record = saved_record.read(tmp_path / "a")
    assert values["outcome"] == record["outcome"]
    assert (values["layer1/learning_rate"], values["layer2/learning_rate"]) == (0.1, 0.2)
    assert (values["hidden"], values["optimizer"], values["epochs"]) == ("5", "sgd", 2)
    assert values["R"] == record["canonical"]["learning_rate"]
    assert [values["κ1"], values["κ2"]] == record["canonical"]["init_scale"]
    assert metrics == {f"epoch/{name}" for name in tensorboard.METRICS}


def test_figures_are_shown_as_they_are(command, tmp_path):
    assert command(*FAST, "--tensorboard", "tb", "--out", "a")[0] == 0
    read = reader(tmp_path / "tb" / "a")
    assert read.Tags()["images"] == ["figures/curves", "figures/first_steps", "figures/weights"]
    for tag in read.Tags()["images"]:
        (image,) = read.Images(tag)
        name = tag.removeprefix("figures/")
        assert image.encoded_image_string == (tmp_path / "a" / f"{name}.png").read_bytes()
        assert image.width > image.height > 100


def test_times_are_the_runs_own(command, tmp_path):
    assert command(*FAST, "--tensorboard", "tb", "--out", "a")[0] == 0
    read = reader(tmp_path / "tb" / "a")
    times = [event.wall_time for event in read.Scalars("step/loss")]
    epochs = [event.wall_time for event in read.Scalars("epoch/test_loss")]
    assert times == sorted(times)
    assert [times[2], times[5]] == pytest.approx(epochs, abs=1e-6)  # of 3 steps each
    seconds = saved_record.read(tmp_path / "a")["timings"]["epoch_seconds"]
    assert epochs[1] - epochs[0] == pytest.approx(seconds[1], abs=1e-6)


def event_files(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


def test_a_run_repeated_replaces_itself_and_no_other_run(command, tmp_path):
    again = (*FAST, "--tensorboard", "tb", "--overwrite", "--out")
    for directory in ("a", "a", "there/a"):
        assert command(*again, directory)[0] == 0
    assert len(event_files(tmp_path / "tb")) == 1  # the same run, wherever its record lies
    assert command(*again, "there/a", "--seed", "1")[0] == 0
    files = event_files(tmp_path / "tb")
    assert len(files) == 2
    assert {Path(file).parent.name.partition("-")[0] for file in files} == {"a"}
    assert len({Path(file).parent for file in files}) == 2


def test_the_files_name_no_host(command, tmp_path):
    import socket

    assert command(*FAST, "--tensorboard", "tb", "--out", "a")[0] == 0
    (file,) = event_files(tmp_path / "tb")
    assert file.startswith("a/events.out.tfevents.0.")
    assert socket.gethostname() not in file


def test_each_run_of_a_sweep_has_its_own_directory(tmp_path, tiny_npz, monkeypatch, capsys):
    from jaxmlp.commands import sweep
    from jaxmlp.record import sweep_files

    monkeypatch.chdir(tmp_path)
    axes = ("--learning-rate", "0.01", "0.1", "--seed", "0..1")
    arguments = [*FAST, *axes, "--data", str(tiny_npz), "--tensorboard", "tb", "--out", "s"]
    sweep.main(arguments)
    written = event_files(tmp_path / "tb")
    _, runs, curves = sweep_files.load(tmp_path / "s")
    assert [Path(file).parent for file in written] == [Path(f"s/run-{i:05d}") for i in range(4)]
    for row in runs.to_pylist():
        read = reader(tmp_path / "tb" / "s" / f"run-{row['run']:05d}")
        mine = [epoch for epoch in curves.to_pylist() if epoch["run"] == row["run"]]
        same(scalars(read)["epoch/test_loss"], [epoch["test_loss"] for epoch in mine])
        same(scalars(read)["epoch/dead/layer1"], [epoch["dead"][0] for epoch in mine])
        values, _ = hyperparameters(read)
        assert values["layer2/learning_rate"] == row["learning_rate_2"]
        assert (values["seed"], values["outcome"]) == (row["seed"], row["outcome"])
        assert (values["R"], values["κ1"]) == (
            row["canonical_learning_rate"],
            row["canonical_init_scale_1"],
        )
    sweep.main([*arguments, "--resume"])  # finished: what a crash may have left undone
    assert event_files(tmp_path / "tb") == written
    assert "tensorboard: tb/s\n" in capsys.readouterr().out


# ---- trouble


def test_without_tensorboardx_one_line_says_so_before_the_training(command, tmp_path, monkeypatch):
    for name in ("tensorboardX", "tensorboardX.record_writer"):
        monkeypatch.setitem(sys.modules, name, None)
    status, out, err = command(*FAST, "--tensorboard", "tb")
    assert (status, out) == (2, "")
    line = "error: --tensorboard needs tensorboardX: pip install -e '.[tensorboard]'\n"
    assert err == line
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tiny.npz"]


def test_a_file_in_the_directorys_place_is_refused_before_the_training(command, tmp_path):
    (tmp_path / "tb").write_text("precious")
    status, out, err = command(*FAST, "--tensorboard", "tb")
    assert (status, out) == (2, "")
    assert err == "error: --tensorboard tb is a file; give a directory's name\n"
    status, out, err = command(*FAST, "--tensorboard", "tb/below")
    assert (status, out, err.count("\n")) == (1, "", 1)
    assert (tmp_path / "tb").read_text() == "precious"


def test_a_disk_that_cannot_be_written_ends_it_before_the_training(command, monkeypatch):
    def refuse(out, size):
        raise OSError(errno.EROFS, "Read-only file system", str(out))

    monkeypatch.setattr(atomic, "reserve", refuse)
    status, out, err = command(*FAST, "--tensorboard", "tb")
    assert (status, out) == (1, "")
    line = "error: Read-only file system (tb); free or mend the disk, or choose another\n"
    assert err == line


@pytest.mark.parametrize("json_too", [(), ("--json",)])
def test_a_disk_that_fills_up_costs_no_record(command, tmp_path, monkeypatch, json_too):
    write_new = atomic.write_new

    def full_for_events(path, content):
        if "tb" not in path.parts:
            return write_new(path, content)
        path.write_bytes(content[:1000])
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(atomic, "write_new", full_for_events)
    status, out, err = command(*FAST, "--tensorboard", "tb", "--out", "a", *json_too)
    assert status == 1
    last = err.splitlines()[-1]
    assert last.startswith("error: No space left on device (tb/a/events.out.tfevents.0.")
    assert saved_record.load(tmp_path / "a")[0]["finished"]
    assert event_files(tmp_path / "tb") == []
    if json_too:
        assert json.loads(out)["finished"]

"""run_torch.py, compare.py and parity.py: what they leave, and what they do with bad input."""

import json
import os
import signal
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

import torchvision_format

from jaxmlp.commands import compare, run_torch, torch_side
from jaxmlp.commands import run as run_jax
from jaxmlp.record import saved_record
from parity_tests import command as parity

FAST = ("--hidden", "5", "--batch-size", "8", "--epochs", "2", "--data", "tiny.npz")


@pytest.fixture
def command(tmp_path, monkeypatch, capsys, tiny_npz):
    """Runs a command in its own working directory; gives status, stdout, stderr."""
    monkeypatch.chdir(tmp_path)

    def run(script, *arguments: str):
        status = 0
        try:
            script.main([str(argument) for argument in arguments])
        except SystemExit as exit_:
            status = exit_.code or 0
        printed = capsys.readouterr()
        return status, printed.out, printed.err

    return run


def keys(value) -> object:
    """The structure of a record: names and types, without values."""
    if isinstance(value, dict):
        return {name: keys(item) for name, item in value.items()}
    if isinstance(value, list):
        return [keys(item) for item in value]
    return type(value)


@pytest.mark.smoke
@pytest.mark.by_default("options1")
@pytest.mark.parametrize(
    "options",
    [
        (),
        ("--optimizer", "adam", "--schedule", "cosine"),
        ("--preprocessing", "standardize", "--bias"),
    ],
)
def test_both_commands_leave_the_same_record_of_the_same_run(command, options):
    for script, out in ((run_jax, "a"), (run_torch, "b")):
        assert command(script, *FAST, *options, "--precision", "float64", "--out", out)[0] == 0
    (first, steps, params), (second, others, other_params) = map(saved_record.load, map(Path, "ab"))
    assert [first["framework"], second["framework"]] == ["jax", "torch"]
    for section in ("experiment", "layers", "data", "diagnostics"):
        assert keys(first[section]) == keys(second[section])
    for section in ("experiment", "layers", "data", "outcome", "verdict"):
        assert first[section] == second[section]
    assert keys(first["epochs"]) == keys(second["epochs"])
    for mine, other in ((steps, others), (params, other_params)):
        assert mine.keys() == other.keys()
        for name in mine:
            assert mine[name].dtype == other[name].dtype
            np.testing.assert_allclose(mine[name], other[name], rtol=1e-9, atol=1e-12)


def test_sigterm_keeps_the_finished_epochs_of_either(command, monkeypatch):
    from jaxmlp.training.run import Run

    for script, trainer in ((run_jax, Run), (run_torch, torch_side.TorchTrainer)):
        row = trainer.row

        def signalled(run, epoch, result, row=row):
            if epoch == 2:
                os.kill(os.getpid(), signal.SIGTERM)
            return row(run, epoch, result)

        monkeypatch.setattr(trainer, "row", signalled)
        status, out, err = command(script, *FAST[:-3], "4", *FAST[-2:], "--out", "a", "--overwrite")
        assert (status, err) == (75, "error: terminated after epoch 2 of 4; a keeps them\n")
        assert "Interrupted after 2 of 4 epochs; these are kept." in out
        assert len(saved_record.load(Path("a"))[0]["epochs"]) == 2


def test_an_unfinished_run_of_the_other_framework_stays(command, monkeypatch):
    def interrupted(run, epoch, result, row=torch_side.TorchTrainer.row):
        os.kill(os.getpid(), signal.SIGINT)
        return row(run, epoch, result)

    monkeypatch.setattr(torch_side.TorchTrainer, "row", interrupted)
    assert command(run_torch, *FAST, "--out", "a")[0] == 130
    status, _, err = command(run_jax, *FAST, "--out", "a")
    assert (status, err.count("\n")) == (2, 1)
    assert "a holds an unfinished run with another framework; --overwrite replaces it" in err
    assert saved_record.load(Path("a"))[0]["framework"] == "torch"


def test_the_default_directories_of_the_two_are_their_own(command, tmp_path):
    for script in (run_jax, run_torch):
        assert command(script, *FAST)[0] == 0
    names = sorted(path.name for path in (tmp_path / "runs").iterdir())
    assert [name.rsplit("-", 1)[0] for name in names] == ["custom-tiny-jax", "custom-tiny-torch"]


def test_compare_says_where_the_runs_part_and_draws_them(command):
    for script, out in ((run_jax, "a"), (run_torch, "b")):
        command(script, *FAST, "--out", out, "--input-scale", "16")
    status, out, err = command(compare, "a", "b", "--out", "figures/c.png")
    assert (status, err) == (0, "")
    assert "the same experiment on the same data" in out
    assert "losses:" in out
    assert "outcome: the same" in out
    assert Path("figures/c.png").read_bytes().startswith(b"\x89PNG")
    assert "equal in every bit over 6 steps" in command(compare, "a", "a")[1]
    command(run_jax, *FAST, "--out", "d")
    out = command(compare, "a", "d")[1]
    assert "input_scale: A 16.0, B 1.0" in out
    assert "first differ at step 1 of 6" in out


def test_compare_finds_the_first_step_and_where_they_part():
    a = np.array([1, 2, 3, 4], np.float32)
    b = np.array([1, 2, 3.0001, 5], np.float32)
    told = compare.losses(a, b)
    assert "first differ at step 3 of 4" in told
    assert "from step 4 on" in told
    nan = np.array([1, np.nan], np.float32)
    assert "equal in every bit" in compare.losses(nan, nan)
    assert "first differ at step 2" in compare.losses(nan, np.array([1, 2], np.float32))


def test_compare_refuses_runs_of_other_shapes_and_what_is_no_record(command, tmp_path):
    command(run_jax, *FAST, "--out", "a")
    command(run_torch, *FAST, "--hidden", "6", "--out", "b")
    status, _, err = command(compare, "a", "b")
    assert status == 2
    assert err == "error: a has widths 60-5-7, b has 60-6-7; compare runs of one shape\n"
    status, _, err = command(compare, "a", "nowhere")
    assert status == 2
    assert err.startswith("error: nowhere is no record of a run")
    assert err.count("\n") == 1


def write_torchvision(tmp_path, monkeypatch) -> None:
    draw = np.random.default_rng(0)
    content = {
        "train_images": draw.integers(0, 256, (5, 3, 32, 32), np.uint8),
        "train_labels": np.array([3, 9, 0, 7, 5], np.int32),
        "test_images": draw.integers(0, 256, (3, 3, 32, 32), np.uint8),
        "test_labels": np.array([1, 9, 4], np.int32),
    }
    torchvision_format.write(tmp_path / "data", content, monkeypatch)


def test_a_run_on_torchvision_data_is_the_run_on_its_arrays(command, tmp_path, monkeypatch):
    write_torchvision(tmp_path, monkeypatch)
    flags = ("--data", "torchvision", "--batch-size", "1", "--epochs", "2", "--train-size", "4")
    assert command(run_torch, *flags, "--out", "a")[0] == 0
    result, steps, _ = saved_record.load(Path("a"))
    assert result["data"]["source"] == "CIFAR-10 by torchvision"
    assert result["data"]["train_size"] == 4
    dataset = torch_side.torchvision_data(tmp_path / "data")
    np.savez(
        "same.npz",
        train_images=np.moveaxis(dataset.train_images, 1, 3),
        train_labels=dataset.train_labels,
        test_images=np.moveaxis(dataset.test_images, 1, 3),
        test_labels=dataset.test_labels,
    )
    assert command(run_torch, "--data", "same.npz", *flags[2:], "--out", "b")[0] == 0
    np.testing.assert_array_equal(saved_record.load(Path("b"))[1]["loss"], steps["loss"])


BAD = {
    "no such root": (("--data", "torchvision", "--data-dir", "nowhere"), 1, "cifar-10-batches-py"),
    "default root": (("--data", "torchvision"), 1, "data holds no intact"),
    "float64 by torchvision": (
        ("--data", "torchvision", "--precision", "float64"),
        2,
        "torchvision gives float32",
    ),
    "tf32 without a GPU": ((*FAST, "--precision", "tf32"), 2, "precision tf32 does not exist"),
    "batch size": ((*FAST, "--batch-size", "7"), 2, "batch size 7 does not divide 24"),
    "optimizer": ((*FAST, "--optimizer", "sdg"), 2, "optimizer 'sdg' is not known"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_line_and_leaves_nothing(command, tmp_path, name):
    arguments, expected, words = BAD[name]
    status, _, err = command(run_torch, *arguments)
    assert status == expected
    assert words in err
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert not (tmp_path / "runs").exists()


def test_a_missing_torch_is_one_line_with_the_remedy(command, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    for script, arguments in ((run_torch, FAST), (parity, ("seeds",))):
        status, _, err = command(script, *arguments)
        assert status == 1
        assert err.startswith("error: PyTorch")
        assert "pip install -e '.[torch]'" in err
        assert err.count("\n") == 1


def test_a_torchvision_that_does_not_load_is_one_line_with_the_remedy(command, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision", None)
    for script, arguments in (
        (run_torch, ("--data", "torchvision")),
        (run_torch, ("--data", "torchvision", "--data-dir", "x")),
        (parity, ("seeds",)),
    ):
        status, _, err = command(script, *arguments)
        assert status == 1
        assert "torchvision does not load" in err
        assert "pip install -e '.[torch]'" in err
        assert err.count("\n") == 1


def test_a_precision_means_the_same_products_on_both_sides(monkeypatch):
    import torch

    import torchref.run
    from jaxmlp.device.precision import MATMUL

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    meant = {"float32": "highest", "float64": "highest", "tf32": "high", "bfloat16": "medium"}
    for kind, products in meant.items():
        dtype = torchref.run.set_precision(kind)
        assert torch.get_float32_matmul_precision() == products
        assert dtype == (torch.float64 if kind == "float64" else torch.float32)
    torch.set_float32_matmul_precision("highest")
    assert MATMUL == {
        "float32": "highest",
        "float64": "highest",
        "tf32": "tensorfloat32",
        "bfloat16": "bfloat16",
    }


def test_a_constant_channel_cannot_be_standardised(command, tmp_path, tiny_npz):
    arrays = dict(np.load(tiny_npz))
    arrays["train_images"][..., 1] = 9
    np.savez("flat.npz", **arrays)
    flags = (*FAST[:-1], "flat.npz", "--preprocessing", "standardize")
    told = [command(script, *flags) for script in (run_jax, run_torch)]
    assert told[0] == told[1] or told[0][::2] == told[1][::2]
    assert told[1][0] == 2
    assert "channel 1 of flat is constant: choose center" in told[1][2]


def test_parity_prints_a_table_and_writes_it(command):
    status, out, err = command(parity, "--quick", "seeds", "exact", "--out", "p")
    assert (status, err) == (0, "")
    assert "products highest" in out
    assert "seeds, float64" in out
    assert "FAIL" not in out
    result = json.loads(Path("p/parity.json").read_text())
    assert {row["result"] for row in result["checks"]} == {"pass"}
    assert sum(row["tensors"] for row in result["checks"]) > 500
    assert Path("p/parity.md").read_text().startswith("| check |")
    assert command(parity, "--quick", "seeds", "--out", "p")[0] == 0  # replaces its own


def test_parity_fails_when_a_side_is_wrong(command):
    from parity_tests import faults

    with faults.planted(next(f for f in faults.FAULTS["forward"] if f.name == "sum for mean")):
        status, out, _ = command(parity, "--quick", "forward", "--out", "p")
    assert status == 1
    assert "FAILED forward: 60-5-6-7" in out
    assert json.loads(Path("p/parity.json").read_text())["failures"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("sedes",), "level 'sedes' is not known; choose from seeds"),
        (("--threads", "0"), "threads 0 must be at least 1"),
        (("--torch-device", "tpu"), "choose cpu or cuda"),
        (("--quick", "exact", "--out", "."), "holds something else"),
    ],
)
def test_bad_input_to_parity_is_one_line(command, arguments, words):
    status, _, err = command(parity, *arguments)
    assert status == 2
    assert words in err
    assert err.count("\n") == 1


@pytest.mark.slow
def test_parity_plants_faults_and_tells_who_noticed(command, monkeypatch):
    from parity_tests import faults, random_faults

    monkeypatch.setattr(random_faults, "FAULTS", {})
    chosen = [fault for fault in faults.FAULTS["forward"] if fault.name == "sum for mean"]
    monkeypatch.setattr(faults, "FAULTS", {"forward": chosen})
    status, out, _ = command(parity, "--faults", "--out", "p")
    assert status == 0
    assert "1 of 1 faults caught" in out
    assert "| sum for mean | jaxmlp.training.step | forward |" in Path("p/parity.md").read_text()
    harmless = chosen[0]._replace(new=chosen[0].old)
    monkeypatch.setattr(faults, "FAULTS", {"forward": [harmless]})
    status, out, _ = command(parity, "--faults", "--out", "p")
    assert status == 1
    assert "0 of 1 faults caught" in out

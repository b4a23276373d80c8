"""scripts/check_sweep.py: a sweep's runs beside themselves alone."""

import numpy as np
import pyarrow.parquet as pq
import pytest

from jaxmlp.commands import check_sweep, sweep

FLAGS = [
    "--hidden",
    "5",
    "--batch-size",
    "4",
    "--epochs",
    "2",
    "--seed",
    "0",
    "1",
    "--learning-rate",
    "0.1",
    "1e30",
    "--input-scale",
    "1",
    "255",
]


def test_runs_that_are_trained_for_it(tiny_npz, capsys):
    check_sweep.main(["--data", str(tiny_npz), *FLAGS])
    said = capsys.readouterr()
    assert "8 runs, 8 at a time" in said.out
    assert "8 of 8 runs: every loss the same in every bit" in said.out
    assert said.err.count("\n") == 8


def test_the_tables_of_a_finished_sweep(tiny_npz, tmp_path, capsys, monkeypatch):
    out = tmp_path / "s"
    sweep.main(["--data", str(tiny_npz), *FLAGS, "--no-forecast", "--out", str(out)])
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    capsys.readouterr()
    check_sweep.main([str(out), "--data", str(tiny_npz)])
    assert "8 of 8 runs: every epoch the same in every bit" in capsys.readouterr().out
    check_sweep.main([str(out), "--data", str(tiny_npz), "--sample", "1"])
    assert "1 of 1 run: every epoch" in capsys.readouterr().out
    assert before == {path.name: path.read_bytes() for path in out.iterdir()}
    # A table that was written with another accuracy, checksums and all:
    from jaxmlp.record import sums, sweep_files

    curves = pq.read_table(out / "curves.parquet")
    better = curves.set_column(
        curves.column_names.index("test_accuracy"), "test_accuracy", [[0.99] * len(curves)]
    )
    listed = sums.Sums(out, sweep_files.NAMES, "0" * 64)
    listed.put({"curves.parquet": sweep_files.parquet(better)})
    with pytest.raises(SystemExit) as ended:
        check_sweep.main([str(out), "--data", str(tiny_npz)])
    assert ended.value.code == 1
    assert "0 of 8 end alike" in capsys.readouterr().out


def test_a_mean_over_few_test_images_is_the_same_in_every_bit(tmp_path, capsys):
    rng = np.random.default_rng(21)
    arrays = {}
    for split, size in {"train": 48, "test": 21}.items():
        arrays[f"{split}_images"] = rng.integers(0, 256, (size, 6, 5, 3), dtype=np.uint8)
        arrays[f"{split}_labels"] = rng.integers(0, 10, size)
    np.savez(tmp_path / "few.npz", **arrays)
    data = ["--data", str(tmp_path / "few.npz")]
    asked = ["--hidden", "5", "--batch-size", "8", "--epochs", "4", "--seed", "0", "1"]
    rates = ["--learning-rate", "0.1", "0.01", "--no-forecast"]
    sweep.main([*data, *asked, *rates, "--out", str(tmp_path / "s")])
    check_sweep.main([str(tmp_path / "s"), *data])
    assert "4 of 4 runs: every epoch the same in every bit" in capsys.readouterr().out


def test_it_has_its_own_help_and_no_flag_that_it_ignores(tmp_path, capsys):
    with pytest.raises(SystemExit):
        check_sweep.main(["--help"])
    said = capsys.readouterr().out
    assert "check_sweep.py DIR" in said
    assert "runs.parquet (a row per run)" not in said
    for flag in ("--out", "--resume", "--overwrite", "--no-forecast", "--distributed"):
        assert f"{flag} " not in said
        with pytest.raises(SystemExit) as ended:
            check_sweep.main(["--seed", "0", "1", flag])
        assert ended.value.code == 2
    capsys.readouterr()
    for bad in ([str(tmp_path)], [str(tmp_path / "gone")], [str(tmp_path), "--sample", "0"]):
        with pytest.raises(SystemExit) as ended:
            check_sweep.main(bad)
        assert ended.value.code == 2
        assert capsys.readouterr().err.count("\n") == 1

"""scripts/calibrate.py: what it measured is believed as it was written, and nothing else."""

import random

import pytest

from jaxmlp.commands import calibrate
from jaxmlp.experiment import Experiment
from jaxmlp.forecasting import calibration
from jaxmlp.record import sealed

MEASURED = {
    "features": {name: 1.5 for names in calibration.MODELS.values() for name in names},
    "ratio": float("nan"),
    "finite": True,
    "diverges": True,
    "fails": False,
    "course": "recovers",
}


@pytest.fixture
def tiny(monkeypatch):
    """Experiments, and counted measurements of them."""
    measured: list[Experiment] = []

    def measure(experiment: Experiment, dataset) -> dict:
        measured.append(experiment)
        return MEASURED

    monkeypatch.setattr(calibration, "measure", measure)
    monkeypatch.setattr(
        calibration, "random_experiment", lambda family, index: Experiment(seed=index)
    )
    return measured


def test_of_flipped_bits_in_measurements_none_is_believed(tiny, tiny_dataset, tmp_path, capsys):
    path = tmp_path / "3.jsonl"
    whole = repr(calibrate.rows(3, 4, tiny_dataset, path))
    content, draw = path.read_bytes(), random.Random(0)
    assert len(tiny) == 4
    assert "[4/4] experiment 3: recovers" in capsys.readouterr().err
    for _ in range(100):
        damaged, at = bytearray(content), draw.randrange(8 * len(content))
        damaged[at // 8] ^= 1 << at % 8
        path.write_bytes(damaged)
        tiny.clear()
        assert repr(calibrate.rows(3, 4, tiny_dataset, path)) == whole
        assert len(tiny) in (0, 1, 2)
        assert bool(tiny) == ("not believed, but measured again" in capsys.readouterr().err)
        assert path.read_bytes().startswith(damaged)


@pytest.mark.parametrize("name", ["3.jsonl", "3.png", "SHA256SUMS"])
@pytest.mark.parametrize("content", [b"", b"mine", b'{"experiment": null}\n', b"[" * 100_000])
def test_a_file_of_somebody_else_is_left_alone(name, content, tiny, tiny_npz, tmp_path, capsys):
    out = tmp_path / "o"
    out.mkdir()
    (out / name).write_bytes(content)
    with pytest.raises(SystemExit) as ended:
        calibrate.main(["--family", "3", "--data", str(tiny_npz), "--out", str(out)])
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "move it away" in error
    assert not tiny
    assert {path.name: path.read_bytes() for path in out.iterdir()} == {name: content}


def test_a_line_that_says_something_else_is_no_measurement(tiny, tiny_dataset, tmp_path):
    path = tmp_path / "3.jsonl"
    for line in ({"data": tiny_dataset.sha256, "features": None, "fails": 1}, {"a": []}):
        sealed.append_line(path, line, calibrate.KEY)
    assert len(calibrate.rows(3, 2, tiny_dataset, path)) == 2

"""The command that makes the stored fingerprints."""

import json

import pytest

from parity_tests import fingerprints as command


def test_help_writes_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(command, "TARGET", tmp_path / "stored.json")
    with pytest.raises(SystemExit) as exit_:
        command.main(["--help"])
    assert exit_.value.code == 0
    assert "--out FILE" in capsys.readouterr().out
    assert not any(tmp_path.iterdir())


def test_what_it_writes_is_what_is_stored(tmp_path, monkeypatch, capsys):
    stored = json.loads(command.TARGET.read_text())
    monkeypatch.setattr(command, "WEIGHT_SEEDS", [3])
    monkeypatch.setattr(command, "ORDER_SEEDS", [4])
    monkeypatch.setattr(command, "SHAPES", {"bias": command.SHAPES["bias"]})
    out = tmp_path / "few.json"
    command.main(["--out", str(out)])
    assert capsys.readouterr().out == f"wrote {out}\n"
    written = json.loads(out.read_text())
    assert written["weights"] == {"bias": {"3": stored["weights"]["bias"]["3"]}}
    assert written["order"] == {"4": stored["order"]["4"]}


def test_a_place_that_cannot_be_written_is_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(command, "write", lambda out: out.write_text(""))
    with pytest.raises(SystemExit) as exit_:
        command.main(["--out", str(tmp_path / "none" / "few.json")])
    assert exit_.value.code == 1
    assert capsys.readouterr().err.startswith("error: ")

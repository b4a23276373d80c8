"""What is printed: onto a full disk, into a pipe that nobody reads, in letters that lack."""

import subprocess
import sys
from pathlib import Path

import pytest

from jaxmlp.commands import output

SCRIPTS = Path(__file__).parent.parent / "scripts"
FULL = Path("/dev/full")


def run(stdout, *words: str, cwd: Path) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, str(SCRIPTS / words[0]), *words[1:]],
        cwd=cwd,
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        timeout=120,
    )


@pytest.mark.skipif(not FULL.exists(), reason="there is no /dev/full")
@pytest.mark.parametrize(
    "words", [("explain.py", "--no-forecast"), ("transport.py", "--input-scale", "2")]
)
def test_what_a_full_disk_loses_is_an_error_of_one_line(words, tmp_path):
    with FULL.open("w") as full:
        ended = run(full, *words, cwd=tmp_path)
    assert ended.returncode == 1
    assert ended.stderr.count("\n") == 1
    assert "No space left on device (<stdout>)" in ended.stderr


@pytest.mark.skipif(not FULL.exists(), reason="there is no /dev/full")
def test_a_run_whose_output_is_lost_leaves_its_record(tiny_npz, tmp_path):
    with FULL.open("w") as full:
        ended = run(
            full,
            "run_jax.py",
            "--data",
            "tiny.npz",
            "--hidden",
            "5",
            "--batch-size",
            "4",
            "--epochs",
            "1",
            "--no-forecast",
            "--out",
            "r",
            cwd=tmp_path,
        )
    assert ended.returncode == 1
    assert "No space left on device" in ended.stderr.splitlines()[-1]
    assert (tmp_path / "r" / "SHA256SUMS").is_file()


def test_letters_that_an_encoding_lacks_have_stand_ins():
    def shown(text: str, encoding: str) -> bytes:
        return text.encode(encoding, errors="jaxmlp.stand_in")

    assert shown("κ1·κ2 × 255² ÷ √s → −1", "ascii") == b"kappa1*kappa2 x 255^2 / sqrts -> -1"
    assert shown("κ × ÷ ²", "latin-1") == "kappa × ÷ ²".encode("latin-1")
    assert shown("日\udcff", "ascii") == b"?\xff"
    assert output.STAND_INS

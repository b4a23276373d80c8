"""Runs the commands as they are here and as they were at a commit, and compares what they leave.

`python scripts/against_commit.py COMMIT --data-dir DIR`. Both trees run the same commands with the
same Python, one after the other, each with a cache of its own. Every file and printed line must be
the same in every bit, but for times and what `mended` names. Exit status 0 only if all are.
"""

import argparse
import difflib
import hashlib
import io
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

FEW, ADAMW = "--epochs 2 --train-size 5000", "--optimizer adamw --bias --hidden 40 30"
FIRST = "--epochs 1 --train-size 2500"
# DATA: --data cifar10 --data-dir DIR. IMAGES: a file with the first 500 images.
QUICK = {
    "baseline": f"run_jax.py DATA {FEW} --out runs/a",
    "scaled": f"run_jax.py DATA {FEW} --case scaled --out runs/b",
    "baseline beside scaled": "compare.py runs/a runs/b",
    "explain": "explain.py DATA --case scaled",
    "explain, JSON": "explain.py DATA --case scaled-lr --json",
    "explain, no forecast": "explain.py --case scaled-lr-init1 --no-forecast",
    "explain, no forecast, JSON": "explain.py --case scaled --no-forecast --json",
    "explain, AdamW": f"explain.py --input-scale 255 {ADAMW} --no-forecast",
    "explain, records": "explain.py runs/b --against runs/a --no-forecast",
    "transport": "transport.py --input-scale 255",
    "transport, uniform": f"transport.py --input-scale 255 --scheme uniform {ADAMW}",
    "transport, torch": "transport.py --input-scale 255 --emit torch --weight conv1.weight",
    "transport, optax": "transport.py --input-scale 255 --emit optax --optimizer adamw --clip 1",
    "transport, JSON": "transport.py --input-scale 255 --emit json --weight-decay 0.01",
}
WHOLE = QUICK | {
    "scaled, 50,000 images": "run_jax.py DATA --epochs 2 --case scaled",
    "scaled-lr": f"run_jax.py DATA {FEW} --case scaled-lr",
    "AdamW, biases": f"run_jax.py DATA {FEW} {ADAMW} --learning-rate 1e-3",
    "cosine, Nesterov": f"run_jax.py DATA {FEW} --schedule cosine --warmup-epochs 1 --nesterov",
    "float64, checkpoints": f"run_jax.py DATA {FEW} --precision float64 --checkpoint ck --json",
    "standardised": f"run_jax.py DATA {FEW} --preprocessing standardize",
    "torch": f"run_torch.py DATA {FEW} --out runs/c",
    "torch, AdamW, biases": f"run_torch.py DATA {FEW} {ADAMW} --learning-rate 1e-3",
    "JAX beside torch": "compare.py runs/a runs/c --out beside.png",
    "certificate, 256": f"certify.py DATA {FIRST} --framework both --to 256",
    "certificate, 255": f"certify.py DATA {FIRST} --framework both --to 255",
    "sweep": f"sweep.py DATA {FEW} --input-scale 1 255 --init-scale 0.1 1 --seed 0..1",
    "parity": "parity.py --quick",
    "the question": "reproduce.py --data IMAGES --epochs 1 --seeds 1 --framework both",
}
TIMES = re.compile(r"\d[\d,]*(\.\d+)? (images/s|s|min|h)\b")
ROOT = Path(__file__).resolve().parent.parent
Files = dict[str, bytes]  # by name


def mended(document: dict[str, Any]) -> dict[str, Any]:
    """A JSON file's object without times, in its new form where names in it were mended."""
    document = {key: value for key, value in document.items() if key != "timings"}
    if "axes" in document:
        del document["sha256"]  # sweep.json's seal, of its times, too
    if isinstance(document.get("outcome"), dict) and document["schema"] == 2:  # result.json
        diagnostics = dict(document["outcome"])
        kind = diagnostics.pop("outcome")
        document |= {"schema": 3, "outcome": kind, "diagnostics": diagnostics}
    for row in [*document.get("summary", []), *document.get("checks", [])]:  # parity.json
        row["result"] = row.pop("verdict", row.get("result"))
    if {"canonical", "identity"} <= document.keys():  # explain.py --json
        document["explanation"] = document.pop("identity")
    return document


def lines(name: str, content: bytes) -> list[str]:
    """What is compared of a file: its lines if it is text, otherwise the digests of its parts."""
    kind, parts = Path(name).suffix, {"content": content}
    if name.endswith("SHA256SUMS"):  # of files that are compared here, or hold times
        return []
    if kind == ".json":
        return json.dumps(mended(json.loads(content)), indent=0, sort_keys=True).splitlines()
    if kind in (".txt", ".md", ".jsonl"):
        text = content.decode().replace("| verdict |", "| result |")  # parity.md
        return TIMES.sub("TIME", text).splitlines()
    if kind == ".parquet":
        table = pq.read_table(io.BytesIO(content))
        parts = {"columns": str(table.schema).encode()}
        for name in table.column_names:  # values and which of them are null, as Arrow sends them
            parts[name] = table.select([name]).combine_chunks().to_batches()[0].serialize()
    return [f"{part}: {hashlib.sha256(value).hexdigest()}" for part, value in parts.items()]


def differences(old: Files, new: Files) -> list[str]:
    """Where two sets of files differ."""
    found = [f"{name}: only {'old' if name in old else 'new'}" for name in sorted(old.keys() ^ new)]
    for name in sorted(old.keys() & new):
        pair = lines(name, old[name]), lines(name, new[name])
        if pair[0] != pair[1]:
            found += difflib.unified_diff(*pair, f"old {name}", f"new {name}", n=0, lineterm="")
    return found


def run(tree: Path, place: Path, words: list[str]) -> Files:
    """What Python printed and wrote in `place`; raises CalledProcessError."""
    place.mkdir(exist_ok=True)
    before = {path: path.stat().st_mtime_ns for path in place.rglob("*")}
    own = {"PYTHONPATH": str(tree), "JAXMLP_CACHE": f"{place}-cache"}
    printed = subprocess.run(
        [sys.executable, *words], cwd=place, env=os.environ | own, capture_output=True, check=True
    ).stdout
    files = {"printed.json" if printed.startswith(b"{") else "printed.txt": printed}
    for path in sorted(place.rglob("*")):
        if path.is_file() and path.stat().st_mtime_ns != before.get(path):
            files[str(path.relative_to(place))] = path.read_bytes()
    return files


def save_first_images(cache: Path, file: Path) -> None:
    """Writes IMAGES, of which the user's files are (n, height, width, channels), from a cache."""
    first = {path.stem: np.load(path)[:500] for path in cache.glob("cifar10*/*.npy")}
    turned = {name: a.transpose(0, 2, 3, 1) if a.ndim > 1 else a for name, a in first.items()}
    np.savez(file, **turned)


def same(name: str, command: str, data: str, top: Path) -> bool:
    """Whether a command does the same in both trees; says it in a line, or more."""
    start, images, sides, found = time.perf_counter(), top / "images.npz", [], []
    if "IMAGES" in command:
        save_first_images(top / "old-cache", images)
    script, *words = command.replace("DATA", data).replace("IMAGES", str(images)).split()
    for side, tree in (("old", top / "tree"), ("new", ROOT)):
        try:
            sides.append(run(tree, top / side, [f"{tree}/scripts/{script}", *words]))
        except subprocess.CalledProcessError as error:
            found += [f"{side}: exit status {error.returncode}", *error.stderr.decode().split("\n")]
    compared = [file for each in sides for file in each if lines(file, each[file])]
    found = found or differences(*sides) or ([] if compared else ["nothing to compare"])
    what = ", ".join(dict.fromkeys(Path(file).name for file in compared))
    print(f"{name}: {what} {'DIFFER' if found else 'the same'}", end=" ")
    print(f"({time.perf_counter() - start:.0f} s)", flush=True)
    print("".join(f"    {line[:160]}\n" for line in found[:30]), end="")
    return not found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("commit", metavar="COMMIT")
    parser.add_argument("--data-dir", metavar="DIR", type=Path, help="of TFDS's CIFAR-10")
    parser.add_argument("--quick", action="store_true", help="two runs, explain and transport only")
    values = parser.parse_args()
    where = f"--data-dir {values.data_dir.resolve()}" if values.data_dir else ""
    with tempfile.TemporaryDirectory() as directory:
        top, commands = Path(directory).resolve(), QUICK if values.quick else WHOLE
        archive = subprocess.check_output(["git", "archive", values.commit], cwd=ROOT)
        (top / "tree").mkdir()
        subprocess.run(["tar", "-x", "-C", top / "tree"], input=archive, check=True)
        for tree in (top / "tree", ROOT):  # else one tree would be compared with itself
            found = run(tree, top / "where", ["-c", "import jaxmlp; print(jaxmlp.__path__)"])
            if str(tree / "jaxmlp") not in found["printed.txt"].decode():
                sys.exit(f"in {tree} Python imports another jaxmlp; run a Python without it")
        data = f"--data cifar10 {where}"
        good = [same(name, command, data, top) for name, command in commands.items()]
    print(f"{sum(good)} of {len(good)} commands do the same as at {values.commit}")
    sys.exit(not all(good))


if __name__ == "__main__":
    main()

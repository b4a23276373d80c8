"""Plants each reported fault in a pair's port and looks what is said of it.

`python -m parity_tests.ports.planted [WORD ...]`: those of which a pair or a name has such a word.
"""

import re
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from parity_tests import pairs
from parity_tests.port_faults import FAULTS, Fault, planted
from parity_tests.ports.port import compare

GUESSED = (1e-5, 1e-3, 4e-2)  # tolerances on logits, as people guess them
STEPS = 3


class Noticed(NamedTuple):
    """What is said of a fault."""

    fault: Fault
    said: str  # the first place, or the line of a refusal; empty: nothing
    layer: bool  # whether it is the guilty one
    suspect: bool  # whether what explains it is among the suspects
    allclose: tuple[bool, ...]  # whether that of the logits notices, by tolerance; empty if refused


def notice(fault: Fault) -> Noticed:
    """Plants a fault and compares."""
    with tempfile.TemporaryDirectory() as directory:
        port = Path(directory) / f"{fault.pair}_flax.py"
        port.write_text(planted(fault))
        original = pairs.path(fault.pair, "torch")
        try:
            report = compare(f"{original}:setup", f"{port}:setup", steps=STEPS, stop=True)
        except ValueError as error:
            line = str(error)
            named = bool(set(re.split(r"[\W_]", line)) & set(re.split(r"[\W_]", fault.guilty)))
            return Noticed(fault, line, named, fault.suspect in line, ())
    guilt, (ours, theirs) = report.guilt, report.outputs
    guesses = tuple(
        ours.shape != theirs.shape or not np.allclose(ours, theirs, rtol=each, atol=each)
        for each in GUESSED
    )
    if guilt is None:
        return Noticed(fault, "", False, False, guesses)
    wanted = fault.guilty.removeprefix("statistics of ")
    words = [suspect for suspect, _ in guilt.suspects]
    layer = same_place(wanted, guilt.place)
    return Noticed(fault, f"{guilt.place}: {guilt.what}", layer, fault.suspect in words, guesses)


def same_place(wanted: str, said: str) -> bool:
    """Whether two places are one: a layer, or what lies between two, of which one end is enough.

    A function is between the layer after which it runs and the next.
    """
    said = re.sub(r" \(call \d+\)", "", said)
    gaps = [place.startswith("between ") or " after " in place for place in (wanted, said)]
    if gaps != [True, True]:
        return wanted == said
    return any(a == b for a, b in zip(_ends(wanted), _ends(said), strict=True) if a)


def _ends(gap: str) -> tuple[str, str]:
    """The layers before and behind; empty if the place behind is a function."""
    before, _, behind = gap.removeprefix("between ").partition(" and ")
    return before.partition(" after ")[2] or before, "" if " after " in behind else behind


def table(noticed: Sequence[Noticed]) -> str:
    """In Markdown."""
    head = "| fault | pair | named first | suspect | allclose 1e-5, 1e-3, 4e-2 | reported |"
    rows = [head, "|---" * 6 + "|"]
    for each in noticed:
        fault = each.fault
        guesses = " ".join("yes" if seen else "no" for seen in each.allclose) or "–"
        named = f"{each.said or 'nothing'}{'' if each.layer else ' (not the guilty one)'}"
        where = fault.source.removeprefix("https://github.com/")
        suspect = f"{fault.suspect}{'' if each.suspect else ' (not named)'}"
        row = (fault.name, fault.pair, named, suspect, guesses, f"[{where}]({fault.source})")
        rows.append(f"| {' | '.join(row)} |")
    return "\n".join(rows)


def count(noticed: Sequence[Noticed]) -> str:
    """How many were noticed, named and explained; what guessed tolerances notice of them."""
    total = len(noticed)
    seen = sum(bool(each.said) for each in noticed)
    layers, suspects = (sum(flags) for flags in zip(*(n[2:4] for n in noticed), strict=True))
    guessed = [
        f"{tolerance:g}: {sum(each.allclose[i] for each in noticed if each.allclose)}"
        for i, tolerance in enumerate(GUESSED)
    ]
    return (
        f"{seen} of {total} faults noticed; the guilty layer named first in {layers}, the suspect "
        f"in {suspects}. allclose on the logits notices at {', '.join(guessed)}"
    )


def main(words: Sequence[str]) -> bool:
    """Prints a line for each, and the table."""
    chosen = [
        fault
        for fault in FAULTS
        if not words or any(word == fault.pair or word in fault.name for word in words)
    ]
    noticed = []
    for fault in chosen:
        noticed.append(notice(fault))
        each = noticed[-1]
        good = "" if each.layer and each.suspect else f"   [{fault.guilty}; {fault.suspect}]"
        print(f"{fault.pair}: {fault.name}: {each.said or 'NOTHING'}{good}", flush=True)
    print(f"\n{table(noticed)}\n\n{count(noticed)}")
    return all(each.said for each in noticed)


if __name__ == "__main__":
    raise SystemExit(0 if main(sys.argv[1:]) else 1)

"""No false alarm: the pairs of models, with weights and batches of many seeds.

`python -m parity_tests.ports.seeds [COUNT [PAIR ...]]`: by default 200 seeds of all eight.
"""

import sys
import time
from collections.abc import Iterator, Sequence

from parity_tests import pairs
from parity_tests.ports.port import EXAMPLES, Port, both
from parity_tests.ports.suspects import Guilt

STEPS = 2


def alarms(pair: str, count: int) -> Iterator[Guilt | None]:
    """What is said of each seed; None where nothing is."""
    original, port = (f"{pairs.path(pair, side)}:setup" for side in ("torch", "flax"))
    with both(original, port) as (torch, jax):
        held = Port(torch, jax, {}, EXAMPLES, lambda doing: None)
        for seed in range(count):
            yield held.redrawn(seed).report(STEPS).guilt


def main(words: Sequence[str]) -> bool:
    """Prints a line for each pair, and each alarm."""
    count, chosen = int(words[0]) if words else 200, words[1:] or pairs.SMALL
    total = 0
    for pair in chosen:
        began = time.perf_counter()
        found = list(alarms(pair, count))
        wrong = [(seed, guilt) for seed, guilt in enumerate(found) if guilt]
        for seed, guilt in wrong:
            where = f"{guilt.place}: {guilt.what} ({guilt.phase})"
            print(f"{pair}, seed {seed}: {where}, share {guilt.share:.3g}")
        seconds = time.perf_counter() - began
        print(f"{pair}: {len(wrong)} alarms of {count} seeds ({seconds:.0f} s)", flush=True)
        total += len(wrong)
    print(f"{total} false alarms on {count} seeds of {len(chosen)} pairs")
    return total == 0


if __name__ == "__main__":
    raise SystemExit(0 if main(sys.argv[1:]) else 1)

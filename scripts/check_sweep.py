"""Is each run of a sweep what it is alone? `python scripts/check_sweep.py --seed 0..63`.

Takes sweep.py's flags; trains the sweep and then every run by itself, and compares step by step.
"""

import argparse
import sys
from typing import Any

import numpy as np
import sweep as command

from jaxmlp import flags

CALM = 1e-3  # relative difference of losses up to which two runs are followed


def main(arguments: list[str] | None = None) -> None:
    values = command.parse(arguments)
    try:
        base, _, settings = command.plan(values)
    except ValueError as error:
        flags.fail(error, flags.INPUT)
    with flags.one_line_errors("nothing more is compared"):
        if not run(values, base, settings):
            raise SystemExit(flags.TROUBLE)


def run(values: argparse.Namespace, base: Any, settings: list[Any]) -> bool:
    """Whether all outcomes are the same."""
    from jaxmlp import data, devices, job, sweep, train

    devices.use_compilation_cache()
    dataset = job.load(values, lambda text: print(text, file=sys.stderr))
    if base.train_size:
        dataset = data.first(dataset, base.train_size)
    many = sweep.Sweep(
        settings, values.seeds, dataset, values.data_parallel, values.runs_per_device,
        None if values.batching is None else values.batching == "vmap",
    )  # fmt: skip
    how = "side by side" if many.program.side_by_side else "one after the other"
    print(f"{len(settings) * len(values.seeds)} runs, {many.height * many.width} at a time, {how}; "
          f"{base.epochs} epochs of {dataset.source}")  # fmt: skip
    alike, outcomes, first, parted = 0, 0, [], []
    count = 0
    for chunk in many.chunks():
        for one in many.train(chunk):
            asked = many.experiment_of(one)
            alone = train.Run(asked, dataset)
            results = list(alone.epochs())
            mine, expected = (
                np.concatenate([epoch.steps.loss for epoch in epochs]).astype(float)
                for epochs in (one.epochs, results)
            )
            with np.errstate(all="ignore"):
                apart = np.abs(mine - expected) / np.abs(expected)
            same = mine.tobytes() == expected.tobytes()
            alike += same
            first.append(apart[0])
            if not same and (apart > CALM).any():
                parted.append(int(np.argmax(apart > CALM)) + 1)
            ended = [
                train.row(asked, len(epochs), epochs[-1], len(dataset.test_labels))
                for epochs in (one.epochs, results)
            ]
            outcomes += near(*ended)
            count += 1
            if sys.stderr.isatty():
                print(f"\r{count} compared", end="", file=sys.stderr)
    print(f"{alike} of {count} runs: every loss the same in every bit")
    print(f"first step: at most {max(first):.1e} apart, relative")
    if parted:
        print(f"{len(parted)} part by more than {CALM:g} at some step, the first at {min(parted)}")
    print(f"{outcomes} of {count} end alike: test accuracy within 0.05, or both not finite")
    return outcomes == count


def near(a: dict[str, Any], b: dict[str, Any]) -> bool:
    """Whether two last epochs tell the same."""
    finite = [bool(np.isfinite(row["test_loss"])) for row in (a, b)]
    return finite[0] == finite[1] and abs(a["test_accuracy"] - b["test_accuracy"]) < 0.05


if __name__ == "__main__":
    sys.exit(main())

"""Fits and checks the forecasts: random experiments, what was foretold, how they really went.

`--family N` generates the experiments from the seed N. With `--fit` the models' weights are fitted
to them and printed; without it the built-in models are judged: confusion matrices, and a figure of
how often what was foretold with a probability came true.
"""

import argparse
import hashlib
from pathlib import Path
from typing import Any

from jaxmlp import atomic
from jaxmlp.commands import exit_status, flags, output
from jaxmlp.commands.progress import Steps
from jaxmlp.data.dataset import Dataset
from jaxmlp.law.words import counted
from jaxmlp.record import sealed, sums

KEY = hashlib.sha256(b"scripts/calibrate.py").hexdigest()  # of the files that it writes
FEW_PROGRAMS = 50  # experiments after which they are dropped: each holds memory maps


def main(arguments: list[str] | None = None) -> None:
    parser = flags.Parser(__doc__ or "")
    flags.add_data_flags(parser)
    parser.add_argument("--family", type=int, required=True, help="seed of the experiments")
    parser.add_argument(
        "--experiments",
        type=int,
        default=300,
        metavar="N",
        help="how many, 10 at least (default: 300)",
    )
    parser.add_argument("--fit", action="store_true", help="fit the models and print them")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("runs/calibration"),
        metavar="DIR",
        help="measurements and figure (default: runs/calibration)",
    )
    values = parser.parse_args(arguments)
    if values.family < 0 or values.experiments < 10:
        exit_status.fail(
            "--family must be at least 0 and --experiments at least 10", exit_status.INPUT
        )
    kept = f"what was measured is kept in {values.out}"
    with exit_status.one_line_errors(kept, for_good=arguments is None):
        run(values)


def run(values: argparse.Namespace) -> None:
    """Measures what is not kept, fits or judges, draws."""
    from jaxmlp.commands import run_job
    from jaxmlp.device import compilation
    from jaxmlp.forecasting import calibration, models
    from jaxmlp.record import reliability

    compilation.use_compilation_cache()
    dataset = run_job.load(values, output.to_stderr)
    atomic.make_directory(values.out)
    name, files = f"{values.family}.png", sums.Sums(values.out, r"\d+\.png", KEY)
    files.check([name])
    path = values.out / f"{values.family}.jsonl"
    measured = rows(values.family, values.experiments, dataset, path)
    used = {kind: getattr(models, kind) for kind in calibration.MODELS}
    if values.fit:
        used = calibration.fit_all(measured)
    shown = calibration.probabilities(measured, used)
    files.put({name: reliability.figure(shown, len(measured))})
    if values.fit:
        for kind, model in used.items():
            rounded = {feature: round(weight, 3) for feature, weight in model.weights.items()}
            print(f"{kind} = Model({model.intercept:.3f}, {rounded})")
    fails, diverges = (sum(row[name] for row in measured) for name in ("fails", "diverges"))
    print(
        f"{len(measured)} experiments of family {values.family}, {dataset.source}: "
        f"{diverges} diverge, {fails} of them fail"
    )
    print(calibration.assessment(measured, used))
    print(f"written: {values.out / name}")


def rows(family: int, count: int, dataset: Dataset, out: Path) -> list[dict[str, Any]]:
    """The family's measurements; those that `out` already holds are not repeated.

    Raises:
        ValueError: `out` is somebody else's file.
    """
    import jax

    from jaxmlp.forecasting import calibration

    have = kept(out, dataset.sha256)
    experiments = [calibration.random_experiment(family, index) for index in range(count)]
    steps = Steps(count, done=sum(experiment.sha256 in have for experiment in experiments))
    for index, experiment in enumerate(experiments):
        key = experiment.sha256
        if key in have:
            continue
        steps.under_way(f"experiment {index}")
        measured = calibration.measure(experiment, dataset)
        have[key] = {"experiment": key, "data": dataset.sha256, **measured}
        sealed.append_line(out, have[key], KEY)
        steps.done(f"experiment {index}: {have[key]['course']}")
        if index % FEW_PROGRAMS == FEW_PROGRAMS - 1:
            jax.clear_caches()
    return [have[experiment.sha256] for experiment in experiments]


def kept(path: Path, data: str) -> dict[str, dict[str, Any]]:
    """A file's measurements on the data of that SHA-256, by their experiments' own."""
    from jaxmlp.forecasting import calibration

    needed = {feature for names in calibration.MODELS.values() for feature in names}
    lines, damaged = sealed.read_lines(path)
    if damaged:
        output.to_stderr(
            f"{path}: {counted(damaged, 'line')} cut off or damaged; what they held is not "
            "believed, but measured again"
        )
    have = {}
    for row in lines:
        features = row.get("features")
        complete = isinstance(features, dict) and needed <= set(features)
        if complete and row.get("data") == data and {"course", "experiment"} <= set(row):
            have[row["experiment"]] = row
    return have

"""The verbs that a run of this project and a user's own network share: each to its own room."""

from importlib import import_module
from typing import Any

from jaxmlp.experiment import Experiment

ROOMS = {  # of an experiment's verb, and of a network's
    "certify": ("training.certificate", "networks.certificate"),
    "explain": ("law.explanation", "networks.explanation"),
    "forecast": ("forecasting.rehearsal", "networks.forecast"),
    "repair": ("law.repair", "networks.knobs"),
    "transport": ("law.transport", "networks.transport"),
}


def certify(run: Any, *arguments: Any, **options: Any) -> Any:
    """Whether two runs are one, bit for bit: `training.certificate`, `networks.certificate`."""
    return _of("certify", run)(run, *arguments, **options)


def explain(run: Any, *arguments: Any, **options: Any) -> Any:
    """Which run a run really is: `law.explanation`, `networks.explanation`."""
    return _of("explain", run)(run, *arguments, **options)


def forecast(run: Any, *arguments: Any, **options: Any) -> Any:
    """What course a run will take: `forecasting.rehearsal`, `networks.forecast`."""
    return _of("forecast", run)(run, *arguments, **options)


def repair(run: Any, *arguments: Any, **options: Any) -> Any:
    """What the allowed knobs have to become: `law.repair`, `networks.knobs`."""
    return _of("repair", run)(run, *arguments, **options)


def transport(run: Any, *arguments: Any, **options: Any) -> Any:
    """The same run with other numbers: `law.transport`, `networks.transport`."""
    return _of("transport", run)(run, *arguments, **options)


def _of(verb: str, run: Any) -> Any:
    room = ROOMS[verb][0 if isinstance(run, Experiment) else 1]
    return getattr(import_module(f"jaxmlp.{room}"), verb)

"""A user's file whose function sets a run up: FILE:FUNCTION."""

import importlib.util
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any


def parts(given: str, flag: str, **arguments: Any) -> tuple[Any, ...]:
    """What the function returns: (model, optimizer, batches) or (model, optimizer, batches, loss).

    Args:
        given: FILE:FUNCTION.
        flag: the one that it is given by, for messages.
        arguments: of the function.

    Raises:
        ValueError: the file cannot be imported, or its function gives something else.
    """
    file, _, name = given.rpartition(":")
    if not file:
        raise ValueError(f"{flag} {given}: give FILE:FUNCTION, such as my_run.py:setup")
    setup = getattr(_imported(Path(file), flag), name, None)
    if not callable(setup):
        raise ValueError(f"{file} has no function {name!r}, which would set the run up")
    made = _guarded(lambda: setup(**arguments), f"{name}() of {file}")
    if not isinstance(made, tuple) or len(made) not in (3, 4):
        raise ValueError(
            f"{name}() of {file} has to return (model, optimizer, batches) or (model, optimizer, "
            f"batches, loss); it returns {_described(made)}"
        )
    return made


def _imported(path: Path, flag: str) -> Any:
    if not path.is_file():
        raise ValueError(f"{path} is no file; give {flag} FILE:FUNCTION")
    name = f"set_up_in_{path.stem}"  # shadows no other module
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ValueError(f"{path} is no Python file; give {flag} FILE:FUNCTION")
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(path.resolve().parent))  # so that it may import what lies beside it
    sys.modules[name] = module
    loader = spec.loader
    _guarded(lambda: loader.exec_module(module), str(path))
    return module


def _guarded(action: Callable[[], Any], what: str) -> Any:
    """What a user's code returns; its failures become one line that names the place."""
    try:
        return action()
    except (Exception, SystemExit) as error:  # whatever a user's code may raise
        frames = traceback.extract_tb(error.__traceback__)
        where = f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""
        reason = (str(error).strip().splitlines() or [""])[0]
        raise ValueError(f"{what} fails: {type(error).__name__}: {reason}{where}") from error


def _described(parts: Any) -> str:
    if isinstance(parts, tuple):
        return f"a tuple of {len(parts)}"
    return f"a {type(parts).__name__}"

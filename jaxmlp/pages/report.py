"""report.html: the page of what lies in a directory, made from its record alone."""

import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path

from jaxmlp import atomic
from jaxmlp.record.result import Result

REPORT = "report.html"
SWEEP, QUESTION = "sweep.json", "runs.jsonl"  # which file tells what a directory holds


def report(*directories: str | Path, to: str | Path | None = None) -> Path:
    """Writes the page of a run, a sweep or the question; of several runs one that compares them.

    Args:
        directories: of records, as the commands leave them.
        to: the file; without it report.html in the directory, or of several in the working one.

    Returns:
        Where the page is.

    Raises:
        ValueError: a record is missing, damaged, unfinished or of another schema, or a file that
            is no such page stands in the way; one line.
        OSError: the disk is full or cannot be written; what stood there still stands.
    """
    paths = [Path(directory) for directory in directories]
    beside = paths[0] if len(paths) == 1 else Path()
    out = beside / REPORT if to is None else Path(to)
    _check(out)
    content = page_of(paths)
    atomic.make_directory(out.parent)
    write(out, content)
    return out


def page_of(directories: Sequence[Path]) -> bytes:
    """The page of what lies there.

    Raises:
        ValueError: as `report`.
    """
    if len(directories) > 1:
        from jaxmlp.pages import runs

        names = runs.called([str(directory) for directory in directories])
        if len(set(names)) < len(names):
            raise ValueError(f"{directories[0]} is named twice; name each record once")
        results = [Result.load(directory) for directory in directories]
        return runs.runs_page(dict(zip(names, results, strict=True)))
    (directory,) = directories
    if (directory / SWEEP).exists():
        from jaxmlp.pages import sweep
        from jaxmlp.record import sweep_files

        return sweep.sweep_page(*sweep_files.load(directory))
    if (directory / QUESTION).exists():
        from jaxmlp.pages import question
        from jaxmlp.record import question_runs

        return question.question_page(
            question_runs.read(directory / QUESTION, lambda text: None), directory
        )
    from jaxmlp.pages import run

    return run.run_page(Result.load(directory))


def beside(
    directory: Path, make: Callable[[], bytes], warn: Callable[[str], None]
) -> dict[str, bytes]:
    """A page written beside its record, by its name; empty where that fails, which is told.

    The record has been written before, and stays.
    """
    try:
        page = make()
        write(directory / REPORT, page)
    except (OSError, ValueError) as error:
        warn(f"no page was written: {error}; the record is whole")
        return {}
    return {REPORT: page}


def write(path: Path, content: bytes) -> None:
    """Writes a page, whole or not at all, in the place of an earlier one.

    Raises:
        ValueError: what stands there is no page of ours.
        OSError: the disk is full or cannot be written; the earlier page is gone, for it may be of
            another record.
    """
    _check(path)
    try:
        atomic.replace(path, content)
    except OSError:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
        raise


def _check(path: Path) -> None:
    from jaxmlp.pages.page import MARK

    if not path.exists() and not path.is_symlink():
        return
    try:
        with path.open("rb") as file:
            ours = MARK.encode() in file.read(1024)
    except OSError:
        ours = False
    if not ours:
        raise ValueError(f"{path} is no page of ours; move it away, or choose another --out")

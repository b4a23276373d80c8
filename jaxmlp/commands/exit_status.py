"""How a command ends: exit statuses, and errors of one line."""

import contextlib
import sys
from collections.abc import Iterator
from typing import NoReturn

from jaxmlp.commands import output
from jaxmlp.errors import TerminatedError

INPUT = 2  # exit status: bad input
TROUBLE = 1  # exit status: data or disk
TERMINATED = 75  # exit status: SIGTERM, all saved; EX_TEMPFAIL of sysexits.h: try again
INTERRUPTED = 130  # exit status: Ctrl-C, as shells report it


def fail(message: object, status: int) -> NoReturn:
    """Ends the program with one line on standard error."""
    line = " ".join(str(message).split())
    print(f"error: {line}", file=sys.stderr)
    raise SystemExit(status)


@contextlib.contextmanager
def one_line_errors(interrupted: str = "no record was written") -> Iterator[None]:
    """Bad input ends with status 2, data, disk or memory trouble with 1, Ctrl-C with 130."""
    try:
        yield
        output.check()
    except KeyboardInterrupt:
        fail(f"interrupted; {interrupted}", INTERRUPTED)
    except TerminatedError as error:
        fail(error, TERMINATED)
    except ValueError as error:
        fail(error, INPUT)
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        fail(f"{error.strerror or error}{where}; free or mend the disk, or choose another", TROUBLE)
    except (MemoryError, RuntimeError) as error:
        # JAX reports a device's memory as a RuntimeError; its first line says how much was asked.
        if not isinstance(error, MemoryError) and "RESOURCE_EXHAUSTED" not in str(error):
            raise
        fail(f"out of memory: {str(error).splitlines()[0]}; choose smaller --hidden", TROUBLE)
    except Exception as error:
        # data's and devices', known by name: they are slow to import
        if type(error).__name__ not in ("DataError", "JobError"):
            raise
        fail(error, TROUBLE)

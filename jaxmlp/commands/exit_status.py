"""How a command ends: exit statuses, and errors of one line."""

import contextlib
import sys
from collections.abc import Iterator
from typing import NoReturn

from jaxmlp.commands import output
from jaxmlp.commands.signals import Signals
from jaxmlp.errors import DataError, JobError, TerminatedError

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
def one_line_errors(
    kept: str = "no record was written", for_good: bool = False
) -> Iterator[Signals]:
    """Bad input ends with status 2, data, disk or memory trouble with 1, a signal with its own.

    Args:
        kept: what is left of the work if a signal ends it; `Signals.kept` can say better later.
        for_good: as `Signals` takes it.
    """
    with Signals(kept, for_good) as signals:
        try:
            yield signals
            output.check()
        except KeyboardInterrupt:
            fail(f"interrupted; {signals.kept}", INTERRUPTED)
        except TerminatedError as error:
            fail(error, TERMINATED)
        except ValueError as error:
            fail(error, INPUT)
        except OSError as error:
            where = f" ({error.filename})" if error.filename else ""
            remedy = "free or mend the disk, or choose another"
            fail(f"{error.strerror or error}{where}; {remedy}", TROUBLE)
        except (DataError, JobError) as error:
            fail(error, TROUBLE)
        except (MemoryError, RuntimeError) as error:
            # JAX reports a device's memory as a RuntimeError; its first line says how much it took.
            if not isinstance(error, MemoryError) and "RESOURCE_EXHAUSTED" not in str(error):
                raise
            fail(f"out of memory: {str(error).splitlines()[0]}; choose smaller --hidden", TROUBLE)

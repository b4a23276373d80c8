"""What a command turns into one line."""


class JobError(Exception):
    """A job's processes do not all come, or do not all stay."""


class DataError(Exception):
    """Trouble with data or a disk; the message is one line: value, rule, remedy."""

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))


class TerminatedError(BaseException):
    """SIGTERM came, and what was finished is saved; the message is one line.

    No Exception, as KeyboardInterrupt is none: who catches errors does not mean it.
    """

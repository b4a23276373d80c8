"""How the user of this process starts a command: by the package's name, or by a script's."""

SCRIPTS = {"run": "run_jax"}  # the script of a command is called as it, but for these
_package_command = ""


def by_package(command: str) -> None:
    """From here on this process is `jaxmlp COMMAND`."""
    global _package_command  # of the process, as sys.argv is
    _package_command = command


def program() -> str | None:
    """What a usage line begins with; None: the script's own name."""
    return f"jaxmlp {_package_command}" if _package_command else None


def words(command: str) -> tuple[str, ...]:
    """The words that start `command`, to be pasted where this process was started."""
    if _package_command:
        return ("jaxmlp", command)
    return ("python", f"scripts/{SCRIPTS.get(command, command.replace('-', '_'))}.py")

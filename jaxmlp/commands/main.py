"""The package's command: `jaxmlp run --input-scale 255`, `jaxmlp explain`, ...; `jaxmlp --help`."""

import importlib.metadata
import importlib.util
import sys

from jaxmlp.commands import exit_status, invocation, output

TORCH_MISSING = "the same in PyTorch, which is missing: pip install 'jaxmlp[torch]'"


def main(arguments: list[str] | None = None, package: tuple[str, ...] = ("jaxmlp",)) -> None:
    """Starts the command that the first word names; only that one is imported.

    Args:
        package: the words that come before it.
    """
    output.forgive()
    command, *rest = (sys.argv[1:] if arguments is None else arguments) or ["--help"]
    if command in invocation.COMMANDS:
        invocation.package = package
        sys.argv = [" ".join((*package, command)), *rest]
        importlib.import_module(f"jaxmlp.commands.{invocation.COMMANDS[command][0]}").main()
        return
    with exit_status.one_line_errors("nothing was started", for_good=arguments is None):
        if command in ("-h", "--help"):
            print(screen(" ".join(package)))
        elif command == "--version":
            print(f"jaxmlp {version()}")
        else:
            known = ", ".join(invocation.COMMANDS)
            raise ValueError(f"{command} is no command of jaxmlp; choose from {known}")


def screen(program: str) -> str:
    """What --help shows."""
    lines = [f"usage: {program} COMMAND ...", "", "commands:"]
    for name, (_, _, purpose) in invocation.COMMANDS.items():
        missing = name == "run-torch" and importlib.util.find_spec("torch") is None
        lines.append(f"  {name:11}{TORCH_MISSING if missing else purpose}")
    example = f"{program} run --input-scale 255 --epochs 2"
    lines += [
        "",
        "options:",
        "  --help     show this; after a command, its flags",
        "  --version  show the version",
        "",
        f"Start with: {example}",
    ]
    return "\n".join(lines)


def version() -> str:
    """The installed version.

    Raises:
        ValueError: the package runs from a directory that was never installed.
    """
    try:
        return importlib.metadata.version("jaxmlp")
    except importlib.metadata.PackageNotFoundError:
        raise ValueError("jaxmlp is not installed, and has no version; pip install it") from None

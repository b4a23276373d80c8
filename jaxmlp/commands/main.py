"""The command `jaxmlp`: its subcommands, each a module that is imported when it is asked for."""

import sys
from importlib import import_module, metadata

from jaxmlp.commands import exit_status, invocation, output

COMMANDS = {
    "run": "train one network, and say what happened",
    "run-torch": "the same in PyTorch, the reference",
    "explain": "which run a run really is, what course it takes, what repairs it",
    "transport": "settings for scaled inputs: flags, or code for any model",
    "certify": "prove that a run and its transport are one, bit by bit",
    "compare": "two records side by side",
    "sweep": "train many runs as one program",
    "reproduce": "the whole question: every case, tables, figures",
}
HELP = "\n".join(
    [
        "usage: jaxmlp COMMAND [FLAGS]",
        "",
        "Input-scaling experiments with a small MLP in JAX. Begin with",
        "  jaxmlp run --input-scale 255",
        "",
        *(f"  {name:11}{text}" for name, text in COMMANDS.items()),
        "",
        "jaxmlp COMMAND --help lists a command's flags; jaxmlp --version the version.",
    ]
)


def main(arguments: list[str] | None = None) -> None:
    """Runs the subcommand that the first argument names on the others."""
    output.forgive()
    arguments = sys.argv[1:] if arguments is None else arguments
    command = arguments[0] if arguments else "--help"
    if command in ("-h", "--help", "help"):
        print(HELP)
        return
    if command == "--version":
        print(metadata.version("jaxmlp"))
        return
    if command not in COMMANDS:
        known = ", ".join(COMMANDS)
        exit_status.fail(f"{command!r} is no command; choose from {known}", exit_status.INPUT)
    invocation.by_package(command)
    module = import_module(f"jaxmlp.commands.{command.replace('-', '_')}")
    module.main(arguments[1:])

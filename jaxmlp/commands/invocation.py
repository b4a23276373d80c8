"""How the user of this process starts a command, for what is printed to be pasted."""

import re

# Of the package's command, by how it was started: `jaxmlp`, or `python -m jaxmlp`; main.py says so.
# Empty where a script was started, or a notebook.
package: tuple[str, ...] = ()

# name → module of jaxmlp.commands, script, and what it does in a line
COMMANDS = {
    "run": ("run", "run_jax", "train one network, say what happened, leave a record"),
    "run-torch": ("run_torch", "run_torch", "the same run in PyTorch, the reference"),
    "explain": ("explain", "explain", "which run a run really is, its forecast, its repairs"),
    "transport": ("transport", "transport", "the settings that undo a scaling of the inputs"),
    "certify": ("certify", "certify", "prove that a run and its transport are one, bit for bit"),
    "compare": ("compare", "compare", "lay two recorded runs side by side"),
    "report": ("report", "report", "one page to look at, of runs, a sweep or the question"),
    "sweep": ("sweep", "sweep", "train many runs as one compiled program"),
    "reproduce": ("reproduce", "reproduce", "the whole question: all cases, tables and figures"),
}
_SCRIPTS = {script: name for name, (_, script, _) in COMMANDS.items()}
_IN_TEXT = re.compile(rf"(?:python scripts/)?\b({'|'.join(_SCRIPTS)})\.py\b")


def words(command: str) -> tuple[str, ...]:
    """The words that start a command of the package, as this process was started."""
    return (*package, command) if package else ("python", f"scripts/{COMMANDS[command][1]}.py")


def name(command: str) -> str:
    """A command as a sentence calls it: `run_jax.py`, or `jaxmlp run`."""
    return " ".join(words(command)) if package else f"{COMMANDS[command][1]}.py"


def installing(extra: str) -> str:
    """The command that brings what an extra of the package names."""
    return f"pip install 'jaxmlp[{extra}]'" if package else f"pip install -e '.[{extra}]'"


def in_text(text: str) -> str:
    """Our own text, which calls commands by their scripts, with the names that this user knows."""
    return _IN_TEXT.sub(lambda found: name(_SCRIPTS[found[1]]), text) if package else text

"""Prints the house: every file of the packages under its room, with its own first line."""

import ast
from pathlib import Path

ROOT = Path(__file__).parent.parent


def first_line(path: Path) -> str:
    """The first line of a module's docstring."""
    return (ast.get_docstring(ast.parse(path.read_text())) or "").partition("\n")[0]


for package in ("jaxmlp", "torchref", "parity_tests", "scripts"):
    # A room's files stand under it; its own line is that of its __init__.py.
    for path in sorted((ROOT / package).rglob("*.py"), key=lambda path: (path.parent, path)):
        room = path.relative_to(ROOT).parent
        if path.name == "__init__.py":
            print(f"{f'{room}/':36}{first_line(path)}")
        else:
            print(f"    {path.name:32}{first_line(path)}")

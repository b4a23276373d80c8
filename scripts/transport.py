"""Prints the settings that make a run with scaled inputs train as the unscaled one does."""

from jaxmlp.commands.transport import main

if __name__ == "__main__":
    main()

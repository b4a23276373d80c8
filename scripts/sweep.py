"""Trains many runs as one compiled program."""

from jaxmlp.commands.sweep import main

if __name__ == "__main__":
    main()

"""Proves that a run and its transport are one run, bit by bit."""

from jaxmlp.commands.certify import main

if __name__ == "__main__":
    main()

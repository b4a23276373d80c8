"""Proves that a run and its transport are one run: `python scripts/certify.py --to 256`."""

from jaxmlp.commands.certify import main

if __name__ == "__main__":
    main()

"""Lays two recorded runs side by side: `python scripts/compare.py runs/A runs/B`."""

from jaxmlp.commands.compare import main

if __name__ == "__main__":
    main()

"""Holds JAX against PyTorch and prints one table: `python scripts/parity.py --quick`."""

from parity_tests.command import main

if __name__ == "__main__":
    main()

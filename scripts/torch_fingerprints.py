"""Writes what torch draws from a seed, as hashes: `python scripts/torch_fingerprints.py`."""

from parity_tests.fingerprints import main

if __name__ == "__main__":
    main()

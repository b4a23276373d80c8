"""Writes the SHA-256s that the generator in NumPy is held to; needs torch."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # parity_tests is not installed

from parity_tests.fingerprints import main

if __name__ == "__main__":
    main()

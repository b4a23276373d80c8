"""Runs the parity checks outside pytest and prints one table."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # parity_tests is not installed

from parity_tests.command import main

if __name__ == "__main__":
    main()

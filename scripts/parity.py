import sys

from parity_tests.command import main

if __name__ == "__main__":
    sys.exit(main())

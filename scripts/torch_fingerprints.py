import sys

from parity_tests.fingerprints import main

if __name__ == "__main__":
    sys.exit(main())

import sys

from jaxmlp.commands.calibrate import main

if __name__ == "__main__":
    sys.exit(main())

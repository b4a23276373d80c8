import sys

from jaxmlp.commands.check_sweep import main

if __name__ == "__main__":
    sys.exit(main())

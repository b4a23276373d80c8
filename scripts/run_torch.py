import sys

from jaxmlp.commands.run_torch import main

if __name__ == "__main__":
    sys.exit(main())

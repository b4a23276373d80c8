import sys

from jaxmlp.commands.compare import main

if __name__ == "__main__":
    sys.exit(main())

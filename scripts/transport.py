import sys

from jaxmlp.commands.transport import main

if __name__ == "__main__":
    sys.exit(main())

import sys

from jaxmlp.commands.reproduce import main

if __name__ == "__main__":
    sys.exit(main())

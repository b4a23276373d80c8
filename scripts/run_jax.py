import sys

from jaxmlp.commands.run import main

if __name__ == "__main__":
    sys.exit(main())

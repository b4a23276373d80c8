import sys

from jaxmlp.commands.certify import main

if __name__ == "__main__":
    sys.exit(main())

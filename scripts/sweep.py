import sys

from jaxmlp.commands.sweep import main

if __name__ == "__main__":
    sys.exit(main())

import sys

from jaxmlp.commands.sweep_figures import main

if __name__ == "__main__":
    sys.exit(main())

import sys

from jaxmlp.commands.explain import main

if __name__ == "__main__":
    sys.exit(main())

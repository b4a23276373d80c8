import sys

from jaxmlp.commands.compile_tpu import main

if __name__ == "__main__":
    sys.exit(main())

"""Compiles the programs for TPUs that are not there."""

from jaxmlp.commands.compile_tpu import main

if __name__ == "__main__":
    main()

"""Compiles the programs for TPUs that are not there: `python scripts/compile_tpu.py v5e:2x2`."""

from jaxmlp.commands.compile_tpu import main

if __name__ == "__main__":
    main()

"""Trains many runs as one program: `python scripts/sweep.py --learning-rate log:1e-4:1:9`."""

from jaxmlp.commands.sweep import main

if __name__ == "__main__":
    main()

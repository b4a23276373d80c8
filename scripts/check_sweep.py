"""Is each run of a sweep what it is alone? `python scripts/check_sweep.py DIR`."""

from jaxmlp.commands.check_sweep import main

if __name__ == "__main__":
    main()

"""Draws a finished sweep: `python scripts/sweep_figures.py DIR --axes X Y`."""

from jaxmlp.commands.sweep_figures import main

if __name__ == "__main__":
    main()

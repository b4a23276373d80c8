"""Draws a finished sweep again, with other axes."""

from jaxmlp.commands.sweep_figures import main

if __name__ == "__main__":
    main()

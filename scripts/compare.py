"""Lays two records side by side."""

from jaxmlp.commands.compare import main

if __name__ == "__main__":
    main()

"""`python -m jaxmlp` is the command `jaxmlp`."""

from jaxmlp.commands.main import main

if __name__ == "__main__":
    main()

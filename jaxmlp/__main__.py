"""`python -m jaxmlp`: the same as the command `jaxmlp`."""

from jaxmlp.commands.main import main

if __name__ == "__main__":
    main(package=("python", "-m", "jaxmlp"))

"""The same run in PyTorch, with the same flags and record."""

from jaxmlp.commands.run_torch import main

if __name__ == "__main__":
    main()

"""The whole question in one command: every case, the tables and the figures."""

from jaxmlp.commands.reproduce import main

if __name__ == "__main__":
    main()

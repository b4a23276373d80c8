"""The whole question, all cases and figures: `python scripts/reproduce.py --seeds 5`."""

from jaxmlp.commands.reproduce import main

if __name__ == "__main__":
    main()

"""Says which run a run really is: `python scripts/explain.py --input-scale 255`."""

from jaxmlp.commands.explain import main

if __name__ == "__main__":
    main()

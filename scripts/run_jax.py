"""Trains one network and leaves a record: `python scripts/run_jax.py --input-scale 255`."""

from jaxmlp.commands.run import main

if __name__ == "__main__":
    main()

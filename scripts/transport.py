"""Prints what undoes a scaling: `python scripts/transport.py --input-scale 255`."""

from jaxmlp.commands.transport import main

if __name__ == "__main__":
    main()

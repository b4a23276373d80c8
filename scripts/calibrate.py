"""Fits and checks the models of the forecasts: `python scripts/calibrate.py --family 2`."""

from jaxmlp.commands.calibrate import main

if __name__ == "__main__":
    main()

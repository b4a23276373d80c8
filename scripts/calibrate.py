"""Fits and checks the forecasts."""

from jaxmlp.commands.calibrate import main

if __name__ == "__main__":
    main()

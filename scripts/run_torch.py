"""The same run in PyTorch: `python scripts/run_torch.py --input-scale 255`."""

from jaxmlp.commands.run_torch import main

if __name__ == "__main__":
    main()

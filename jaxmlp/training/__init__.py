"""One run as one compiled program: model, optimizer, step, checkpoints, certificate."""

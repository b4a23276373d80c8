"""Where images come from: CIFAR-10, users' files, a stand-in; cached, verified, without JAX."""

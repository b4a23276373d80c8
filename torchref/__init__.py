"""The reference in plain PyTorch: it shares nothing with jaxmlp but the numbers both are given."""

"""Parity for anyone's own port: two models in two frameworks, held together layer by layer."""

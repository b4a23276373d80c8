"""Which runs are the same run: exact arithmetic on settings, without JAX."""

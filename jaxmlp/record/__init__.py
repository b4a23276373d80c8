"""What a run or a sweep leaves on the disk, written whole or not at all, without JAX."""

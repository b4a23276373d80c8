"""Networks that exist on both sides, held against each other layer by layer."""

"""A user's own network, in Flax or torch, as the law sees it."""

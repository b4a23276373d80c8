"""Pages to look at: one file each, made from records alone, that opens from disk."""

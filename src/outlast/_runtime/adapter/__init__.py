"""Parts that adapters are made of."""

"""The runner: claims records, runs their steps, and records what became of them."""

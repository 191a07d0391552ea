"""An event loop whose time jumps, with seeded orders."""

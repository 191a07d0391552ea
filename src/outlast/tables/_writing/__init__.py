"""Points on their way to the store: folded, grouped, committed together."""

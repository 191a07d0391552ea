"""The services that the drill of a lost database runs: each module is one, started as a process of its own."""

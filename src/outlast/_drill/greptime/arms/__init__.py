"""The services that the drill of doomed work runs."""

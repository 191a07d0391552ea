"""The services that the drill of a taken slot runs."""

"""The services that the drill of a full disk runs."""

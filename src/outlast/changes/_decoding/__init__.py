"""From bytes of the protocol to transactions."""

"""The client of a node, and of any other server of the protocol: what it decides is apart from what it asks."""

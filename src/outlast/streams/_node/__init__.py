"""The node: a store of streams, served over HTTP by an open protocol, and by one of ours beside it."""

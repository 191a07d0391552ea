"""The work of one process for its service: run it, take its signals, watch its event loop, keep its children and its log."""

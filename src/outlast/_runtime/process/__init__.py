"""What one process does for its service: run it, take its signals, watch its event loop, keep its children and its log."""

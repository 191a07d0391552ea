"""The client's side of HTTP: errors and answers classified, and a peer as a dependency."""

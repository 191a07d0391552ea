"""Lines of the line protocol: read strictly, quickly, and by their place."""

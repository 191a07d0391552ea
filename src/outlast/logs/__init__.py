"""Writing the lines that the core decides on."""

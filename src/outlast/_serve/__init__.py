"""The answers of a process about itself over HTTP: its health and its figures."""

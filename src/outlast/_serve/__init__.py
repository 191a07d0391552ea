"""What a process answers over HTTP for itself: its health and its figures."""

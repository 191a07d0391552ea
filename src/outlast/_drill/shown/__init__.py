"""The face of a drill: figures, charts, a live view, a report."""

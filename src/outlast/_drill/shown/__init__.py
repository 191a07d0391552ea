"""What people see of a drill: figures, charts, a live view, a report."""

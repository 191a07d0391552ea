"""The drill of a job queue whose database goes away."""

"""The submitting side of a process: submissions in batches, waits for results, news, the count of live records."""

"""The shells that carry decisions out: clocks, tasks, threads and signals."""

"""The doors of OpenTSDB over HTTP: points come in by `/api/put`, and are read by `/api/query` and `/api/range`."""

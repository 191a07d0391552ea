"""Questions about points: the queries of OpenTSDB, and ranges."""

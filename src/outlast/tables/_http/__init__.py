"""Tables over HTTP: the doors of InfluxDB and OpenTSDB."""

"""The telnet door of OpenTSDB: `put` lines on a port of their own."""

"""The bytes of streams on a disk: bytes in, values out. Nothing here opens a file (docs/streams_format.md)."""

"""Files that outlive full disks and crashes: appending, journals, room. Standard library only, and no event loop."""

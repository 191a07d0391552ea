"""The disk, as every part needs it: appending, journals, and how much room there is. Standard library only, no event loop."""

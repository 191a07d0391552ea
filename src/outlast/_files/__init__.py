"""What every part needs of a disk: appending, journals, and how much room there is. Standard library only, no event loop."""

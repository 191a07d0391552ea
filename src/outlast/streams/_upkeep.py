"""The work of a store that nobody asks for: recover what was not used yet, give up what is old, note that it is in use."""

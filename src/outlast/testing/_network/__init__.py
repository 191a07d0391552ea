"""A proxy that cuts, hangs, slows and refuses, and free ports."""

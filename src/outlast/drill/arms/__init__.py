"""The arms of the drills: each module is one service, started as a process of its own."""

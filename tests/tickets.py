"""A ticket of admission that only remembers what was done to it."""

from __future__ import annotations


class Ticket:
    def __init__(self) -> None:
        self.state = "under way"
        self.refuses = False

    def park(self) -> None:
        if self.refuses:
            raise RuntimeError("as many are parked as may be")
        self.state = "parked"

    def unpark(self) -> None:
        self.state = "under way"

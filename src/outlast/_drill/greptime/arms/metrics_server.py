"""The settings of the arms that take metrics over HTTP."""

from __future__ import annotations

import os
from dataclasses import dataclass

ADDRESS_VARIABLE = "OUTLAST_DRILL_ADDRESS"
STORE_VARIABLE = "OUTLAST_DRILL_STORE"
STATE_VARIABLE = "OUTLAST_DRILL_STATE"


@dataclass(frozen=True, slots=True)
class MetricsSettings:
    """The settings of such an arm, in environment variables."""

    address: str
    """Its host and port."""
    store: str
    """The path of a SQLite file, or the DSN of a PostgreSQL."""
    state: str
    """A directory in which the arm may keep what it likes."""

    @classmethod
    def from_environment(cls) -> MetricsSettings:
        """Read the settings; a missing variable is a KeyError that names it."""
        return cls(*(os.environ[variable] for variable in (ADDRESS_VARIABLE, STORE_VARIABLE, STATE_VARIABLE)))

    def as_environment(self) -> dict[str, str]:
        """Return the variables from which `from_environment` reads the same settings."""
        return {ADDRESS_VARIABLE: self.address, STORE_VARIABLE: self.store, STATE_VARIABLE: self.state}

    @property
    def is_postgres(self) -> bool:
        """Whether its store is a PostgreSQL."""
        return "://" in self.store

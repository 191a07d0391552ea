"""What tests of services need: a real PostgreSQL that can be broken, a proxy that counts and fails, virtual time
with seeded schedules, and peers that fail by a script.
"""

from __future__ import annotations

from outlast.testing.fault_proxy import FaultProxy
from outlast.testing.postgres_binaries import PostgresNotFoundError, find_postgres_bin, find_postgres_majors
from outlast.testing.postgres_files import ServerFailedError
from outlast.testing.postgres_server import PostgresServer
from outlast.testing.scripted_faults import Episode, Script, Trouble
from outlast.testing.scripted_peer import ScriptedPeer
from outlast.testing.virtual_time import DeadlockError, SpinError, VirtualTimeLoop, run_virtual

__all__ = [
    "DeadlockError",
    "Episode",
    "FaultProxy",
    "PostgresNotFoundError",
    "PostgresServer",
    "Script",
    "ScriptedPeer",
    "ServerFailedError",
    "SpinError",
    "Trouble",
    "VirtualTimeLoop",
    "find_postgres_bin",
    "find_postgres_majors",
    "run_virtual",
]

"""A kit for tests of services: a real PostgreSQL and a real etcd that can be broken, a proxy that counts and fails, virtual time
with seeded schedules, peers that fail by a script, and small disks that run full.
"""

from __future__ import annotations

from outlast.testing._child_server import ServerFailedError
from outlast.testing._disks.mounts import SmallDiskError
from outlast.testing._disks.small_disk import DiskCall, DiskKind, SmallDisk
from outlast.testing._etcd.binaries import EtcdNotFoundError, find_etcd
from outlast.testing._etcd.server import EtcdServer
from outlast.testing._network.fault_proxy import FaultProxy
from outlast.testing._network.ports import free_port
from outlast.testing._peers.scripted_faults import Episode, Script, Trouble
from outlast.testing._peers.scripted_peer import ScriptedPeer
from outlast.testing._postgres.binaries import PostgresNotFoundError, find_postgres_bin, find_postgres_majors
from outlast.testing._postgres.server import PostgresServer
from outlast.testing._time.virtual_time import DeadlockError, SpinError, VirtualTimeLoop, run_virtual

__all__ = [
    "DeadlockError",
    "DiskCall",
    "DiskKind",
    "Episode",
    "EtcdNotFoundError",
    "EtcdServer",
    "FaultProxy",
    "PostgresNotFoundError",
    "PostgresServer",
    "Script",
    "ScriptedPeer",
    "ServerFailedError",
    "SmallDisk",
    "SmallDiskError",
    "SpinError",
    "Trouble",
    "VirtualTimeLoop",
    "find_etcd",
    "find_postgres_bin",
    "find_postgres_majors",
    "free_port",
    "run_virtual",
]

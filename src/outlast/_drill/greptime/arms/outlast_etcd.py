"""The arm *outlast* of the greptime drill: `outlast.procedures` on etcd, in a service."""

from __future__ import annotations

import sys

import outlast
from outlast._drill.greptime.arms.outlast_tables import build
from outlast._drill.greptime.arms.table_server import TableSettings
from outlast.etcd import Etcd

if __name__ == "__main__":
    settings = TableSettings.from_environment()
    sys.exit(outlast.run(build(Etcd(settings.store), settings)))

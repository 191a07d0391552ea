"""The arm *outlast-http* of the fluvio drill: `outlast.streams` behind its node, with default settings, in a service."""

from __future__ import annotations

import sys

import outlast
from outlast._drill.fluvio.arms.log_server import LogSettings
from outlast.http import Server
from outlast.streams import Node, Streams


def build(settings: LogSettings) -> outlast.Service:
    """Return the service: its streams, its node, its server."""
    service = outlast.Service("drill")
    streams = Streams(settings.disk)
    streams.attach(service)
    Server(Node(streams).attach(service), settings.address).attach(service)
    return service


if __name__ == "__main__":
    sys.exit(outlast.run(build(LogSettings.from_environment())))

"""The store in etcd: for thousands of procedures beside a cluster that is there already, not for millions."""

from __future__ import annotations

from outlast.procedures._stores.etcd._store import EtcdStore

__all__ = ["EtcdStore"]

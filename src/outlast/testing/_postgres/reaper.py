"""Cleans up after a test process that was killed and could not stop its server itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from outlast.testing._reaper import Reaper

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

_SCRIPT: Final = """
cat >/dev/null
data=$1; shift
read -r pid <"$data/postmaster.pid" 2>/dev/null || pid=none
shared=$(sed -n 7p "$data/postmaster.pid" 2>/dev/null)
if [ "$(readlink "/proc/$pid/cwd" 2>/dev/null)" = "$data" ]; then
  kill -STOP "$pid"
  for stat in /proc/[0-9]*/stat; do
    read -r line 2>/dev/null <"$stat" || continue
    fields=${line##*) }; fields=${fields#* }
    [ "${fields%% *}" = "$pid" ] || continue
    child=${stat#/proc/}; kill -KILL "${child%/stat}"
  done
  kill -KILL "$pid"
fi
rm -rf "$@"
[ -z "$shared" ] || ipcrm -m "${shared##* }"
"""
"""Waits for the end of its input, which comes with the end of its parent, however that ends; then kills the server, and removes
its directories and its segment of shared memory.

A process id in a stale file may belong to somebody else by then, so the process must also work in the data directory.
"""


def reap_server(data: Path, directories: Iterable[Path]) -> Reaper:
    """Watch over one server; when this process is gone it is killed and its directories are removed.

    Where there is no /proc the directories only.
    """
    return Reaper(_SCRIPT, str(data), *map(str, directories))

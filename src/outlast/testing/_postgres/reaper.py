"""Cleans up after a test process that was killed and could not do it itself."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING, Final

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


class Reaper:
    """Watches over one server; when this process is gone it kills the server and removes its directories.

    An exit handler does not run after SIGKILL, SIGTERM or a time-out of CI, and a forgotten server keeps its port,
    memory and files. Where there is no /proc it removes the directories only.
    """

    def __init__(self, data: Path, directories: Iterable[Path]) -> None:
        """Begin to watch; `directories` are what to remove."""
        self._process = subprocess.Popen(
            ["/bin/sh", "-c", _SCRIPT, "reaper", str(data), *map(str, directories)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            # Ctrl-C at the terminal is for the tests; what cleans up after them must survive it.
            start_new_session=True,
        )

    def dismiss(self) -> None:
        """Stop watching: everything was cleaned up in good order."""
        self._process.kill()
        self._process.wait()
        if self._process.stdin is not None:
            self._process.stdin.close()

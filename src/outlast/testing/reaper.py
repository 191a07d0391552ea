"""Cleans up after a test process that was killed and could not do it itself."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

_SCRIPT: Final = """
cat >/dev/null
read -r pid <"$1/postmaster.pid" 2>/dev/null || pid=none
if [ "$(readlink "/proc/$pid/cwd" 2>/dev/null)" = "$1" ]; then
  kill -STOP "$pid"
  for stat in /proc/[0-9]*/stat; do
    read -r line <"$stat" 2>/dev/null || continue
    rest=${line##*) }
    set -- "$1" "$2" $rest
    [ "$4" = "$pid" ] && kill -KILL "$(basename "$(dirname "$stat")")"
  done
  kill -KILL "$pid"
fi
[ -z "$2" ] || rm -rf "$2"
"""
"""Waits for the end of its input, which comes with the end of its parent, however that ends; then kills the server.

A process id in a stale file may belong to somebody else by then, so the process must also work in the data directory.
"""


class Reaper:
    """Watches over one server; when this process is gone it kills the server and removes its directory.

    An exit handler does not run after SIGKILL, SIGTERM or a time-out of CI, and a forgotten server keeps its port,
    memory and files. Where there is no /proc it removes the directory only.
    """

    def __init__(self, data: Path, directory: Path | None) -> None:
        """Begin to watch; `directory` is what to remove, if anything."""
        self._process = subprocess.Popen(
            ["/bin/sh", "-c", _SCRIPT, "reaper", str(data), str(directory or "")],
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

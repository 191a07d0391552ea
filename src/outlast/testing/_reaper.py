"""Cleans up after a test process that was killed and could not do it itself."""

from __future__ import annotations

import subprocess


class Reaper:
    """Runs a script of the shell when this process is gone, however it ended.

    An exit handler does not run after SIGKILL, SIGTERM or a time-out of CI, and what is forgotten keeps its port, memory,
    mounts and files. The script begins with `cat >/dev/null`: that ends with its input, and its input with this process.
    """

    def __init__(self, script: str, *arguments: str) -> None:
        """Begin to watch; the script finds `arguments` in `$1` and on."""
        self._process = subprocess.Popen(
            ["/bin/sh", "-c", script, "reaper", *arguments],
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

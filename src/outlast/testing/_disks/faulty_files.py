"""The owner's side of a faulty disk: starts its program and sends it orders."""

from __future__ import annotations

import contextlib
import json
import select
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, Final

from outlast.testing._disks.mounts import SmallDiskError

PROGRAM: Final = Path(__file__).with_name("faulty_program.py")
ANSWER_S_MAX: Final = 30.0


class FaultyFiles:
    """A FUSE file system in a process of its own, at `mount_point`, over the files of `folder`."""

    def __init__(self, folder: Path, mount_point: Path) -> None:
        """Mount it; it is there when this returns. Raises SmallDiskError with what the program said if it ends."""
        self._lock = threading.Lock()
        self._complaints = (folder.parent / "complaints").open("w+b")
        self._process = subprocess.Popen(
            [sys.executable, "-P", str(PROGRAM), str(folder), str(mount_point)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._complaints,
            start_new_session=True,
        )
        try:
            self._answer()
        except BaseException:
            self.close()
            raise

    def order(self, name: str, *arguments: object) -> Any:  # noqa: ANN401 - JSON
        """Send one order and return its answer: it holds from then on. For any thread."""
        with self._lock:
            stdin = self._process.stdin
            assert stdin is not None  # noqa: S101 - it was asked for
            with contextlib.suppress(BrokenPipeError):
                stdin.write(json.dumps([name, *arguments]).encode() + b"\n")
                stdin.flush()
            return self._answer()

    def close(self) -> None:
        """End the program: calls that hang in it fail, and the mount point is to be unmounted."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._complaints):
            if stream is not None:
                # What could not be sent to a program that had ended is still in the buffer.
                with contextlib.suppress(BrokenPipeError):
                    stream.close()

    def _answer(self) -> Any:  # noqa: ANN401 - JSON
        stdout = self._process.stdout
        assert stdout is not None  # noqa: S101 - it was asked for
        ready, _, _ = select.select([stdout], [], [], ANSWER_S_MAX)
        line = stdout.readline() if ready else b""
        if line:
            return json.loads(line)
        self._complaints.seek(0)
        said = self._complaints.read().decode(errors="replace").strip().rpartition("\n")[2]
        state = "ended" if ready else f"gave no answer within {ANSWER_S_MAX:.0f} s"
        msg = f"the program of a faulty disk {state}; it said: {said or 'nothing'}"
        raise SmallDiskError(msg)

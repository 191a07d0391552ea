"""Mounts and what unmounts them after a kill."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING, Final

from outlast import OutlastError

if TYPE_CHECKING:
    from pathlib import Path

COMMAND_S_MAX: Final = 60.0
REAP: Final = """
cat >/dev/null
folder=$1; shift
for point; do umount "$point" 2>/dev/null || umount -l "$point"; done
rm -rf --one-file-system "$folder"
"""
"""Unmounts, the innermost first, and removes the folder they lie in. What is still open goes on until it is closed."""


class SmallDiskError(OutlastError):
    """A small disk could not be made, or cannot be changed as asked."""


def run(*command: str | Path) -> None:
    """Run a program of the system. Raises SmallDiskError with what it said."""
    try:
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=COMMAND_S_MAX)
    except (OSError, subprocess.TimeoutExpired) as exc:
        msg = f"a small disk needs {command[0]}, which could not be run: {exc}"
        raise SmallDiskError(msg) from exc
    if done.returncode != 0:
        said = (done.stderr.strip() or done.stdout.strip()).partition("\n")[0]
        msg = f"{' '.join(map(str, command))}: exit code {done.returncode}: {said or 'it said nothing'}"
        raise SmallDiskError(msg)


def require_rights() -> None:
    """Raise SmallDiskError unless this process may try to mount."""
    if sys.platform != "linux":
        msg = f"a small disk needs Linux, this is {sys.platform}"
        raise SmallDiskError(msg)
    if os.geteuid() != 0:
        msg = "mounting a small disk needs root; SmallDisk.command(...) runs a program in a namespace where it is root"
        raise SmallDiskError(msg)


def mount_memory(point: Path, size_bytes: int, inodes: int | None) -> None:
    """Mount a tmpfs."""
    options = f"size={size_bytes},mode=0755" + (f",nr_inodes={inodes}" if inodes else "")
    run("mount", "-t", "tmpfs", "-o", options, "outlast-small-disk", point)


def mount_ext4(point: Path, image: Path, size_bytes: int, inodes: int | None) -> None:
    """Make an ext4 in the file `image` and mount it by a loop device, which goes with the mount."""
    with image.open("wb") as file:
        file.truncate(size_bytes)
    # No blocks are set aside for root: when the disk is full it is full for root as well.
    count = ("-N", str(inodes)) if inodes else ()
    run("mkfs.ext4", "-q", "-F", "-m", "0", *count, image)
    run("mount", "-o", "loop", image, point)


def unmount(point: Path) -> None:
    """Unmount; a mount that somebody uses is taken out of sight, and ends with its last user."""
    try:
        run("umount", point)
    except SmallDiskError:
        run("umount", "-l", point)


def command_with_rights(program: list[str]) -> list[str]:
    """Return the command that runs `program` as root of a namespace of its own, where it may mount a tmpfs."""
    unshare = shutil.which("unshare")
    if unshare is None:
        msg = "a namespace needs the program unshare (util-linux), which is not on the path"
        raise SmallDiskError(msg)
    return [unshare, "--user", "--map-root-user", "--mount", "--", *program]

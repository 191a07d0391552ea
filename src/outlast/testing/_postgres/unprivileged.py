"""The account a server under test runs as when we are root, and what that account may reach."""

import os
import pwd
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path

from outlast._core.faults import OutlastError

ACCOUNT_NAMES = ("postgres", "nobody")
"""In order of preference; both are found on nearly every system."""
DIRECTORY_VARIABLE = "OUTLAST_POSTGRES_TMPDIR"
"""Names where servers keep their files, instead of the temporary directory of the system."""


class UnprivilegedError(OutlastError):
    """A server could not be given an account, or a directory that the account can reach."""


@dataclass(frozen=True, slots=True)
class Account:
    """A user of the system with all its groups."""

    name: str
    uid: int
    gid: int
    groups: frozenset[int]

    def may(self, path: Path, wanted: int) -> bool:
        """Return whether the mode bits allow `wanted` (a sum of 4 read, 2 write, 1 search); access lists are not looked at."""
        status = path.stat()
        mode = stat.S_IMODE(status.st_mode)
        if status.st_uid == self.uid:
            granted = mode >> 6
        elif status.st_gid in self.groups:
            granted = mode >> 3
        else:
            granted = mode
        return granted & wanted == wanted

    def may_traverse(self, path: Path) -> bool:
        """Return whether the account may enter every directory that leads to `path`."""
        return all(self.may(parent, 1) for parent in path.resolve().parents)


def account_for_server() -> Account | None:
    """Return the account a server must run as: `postgres`, else `nobody`; None when we are not root and can be it.

    Raises UnprivilegedError when we are root and the system has neither. No account is ever created.
    """
    if os.geteuid() != 0:
        return None
    for name in ACCOUNT_NAMES:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return Account(name, entry.pw_uid, entry.pw_gid, frozenset(os.getgrouplist(name, entry.pw_gid)))
    msg = (
        "PostgreSQL refuses to run as root, and the system has none of the users "
        f"{', '.join(ACCOUNT_NAMES)} to run it as; create one (useradd --system postgres) or start as an ordinary user"
    )
    raise UnprivilegedError(msg)


def fresh_directory(account: Account | None, prefix: str) -> Path:
    """Make an empty directory that only its owner, the account, may enter, below one that the account can reach."""
    parent = os.environ.get(DIRECTORY_VARIABLE) or reachable_parent(account)
    directory = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
    hand_over(directory, account)
    return directory


def reachable_parent(account: Account | None) -> Path:
    """Return a temporary directory that the account can reach.

    The default one may lie inside root's home, which nobody else may enter: then `/tmp` or `/var/tmp`.
    """
    candidates = [Path(tempfile.gettempdir()), Path("/tmp"), Path("/var/tmp")]  # noqa: S108  mkdtemp makes the names
    for parent in candidates:
        if parent.is_dir() and (account is None or account.may_traverse(parent / "x")):
            return parent
    who = f"the user {account.name}" if account else "this user"
    msg = f"no temporary directory that {who} can reach: tried {', '.join(map(str, candidates))}; give a directory"
    raise UnprivilegedError(msg)


def hand_over(directory: Path, account: Account | None) -> None:
    """Make the account the owner of a directory, so that a server which runs as it can work there."""
    if account is not None:
        os.chown(directory, account.uid, account.gid)

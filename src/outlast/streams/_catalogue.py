"""The streams that a folder holds, found by their own files: there is no other list of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from outlast.extend import NewerFormatError
from outlast.streams._errors import DamagedError
from outlast.streams._format.names import GONE_NAME, META_NAME, parse_folder_name
from outlast.streams._log import read_meta
from outlast.streams._log.folders import NEW_NAME

if TYPE_CHECKING:
    from pathlib import Path

    from outlast.extend import FileSystem
    from outlast.streams._format.meta import Meta


class Found(NamedTuple):
    """The folders of a volume."""

    streams: list[tuple[Path, Meta]]
    gone: list[Path]
    """Those of streams that were deleted or never made, of which something is left."""
    unknown: list[tuple[Path, str]]
    """Those that are left as they are, and why: nobody can say which stream they hold."""


def look_over(folder: Path, files: FileSystem) -> Found:
    """Read the descriptions of all streams. It changes nothing. Raises `OSError`. In a thread."""
    found = Found([], [], [])
    by_name: dict[str, tuple[Path, Meta]] = {}
    try:
        names = files.names(folder)
    except FileNotFoundError:
        return found
    for name in sorted(names):
        path = folder / name
        if parse_folder_name(name) is None:
            found.unknown.append((path, "it has no name of ours"))
            continue
        try:
            meta = read_meta(path, files)
        except (DamagedError, NewerFormatError) as error:
            found.unknown.append((path, str(error)))
        except FileNotFoundError:
            inside = files.names(path)
            # An empty folder is what a crash leaves before a creation has its first file, and after a removal has its last.
            if not inside or GONE_NAME in inside or NEW_NAME in inside:
                found.gone.append(path)
            else:
                found.unknown.append((path, f"it has no {META_NAME}"))
        else:
            other = by_name.get(meta.name)
            if other is None or other[1].created_us < meta.created_us:
                by_name[meta.name] = (path, meta)
            if other is not None:
                older = min((path, meta), other, key=lambda each: each[1].created_us)
                found.unknown.append((older[0], f"a newer stream is called {meta.name!r} as well"))
    found.streams.extend(by_name.values())
    return found

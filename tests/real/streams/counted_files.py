"""The files of this machine, with a count of what fails and of what is asked of the disk while it does."""

from __future__ import annotations

import errno
from collections import Counter
from typing import TYPE_CHECKING, Any

from outlast.extend import LOCAL_FILES

if TYPE_CHECKING:
    from collections.abc import Callable


class CountedFiles:
    """A `FileSystem`: `failed` counts errors by call and name of the errno, `calls` all calls. It does nothing else."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self.failed: Counter[tuple[str, str]] = Counter()

    def __getattr__(self, name: str) -> Callable[..., Any]:
        real = getattr(LOCAL_FILES, name)

        def counted(*arguments: object) -> Any:
            self.calls[name] += 1
            try:
                return real(*arguments)
            except OSError as exc:
                self.failed[name, errno.errorcode.get(exc.errno or 0, "?")] += 1
                raise

        setattr(self, name, counted)
        return counted

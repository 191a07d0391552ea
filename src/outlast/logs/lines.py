"""Hand a `Line` of the core to stdlib logging."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import logging

    from outlast.core.incidents import Line


def write(logger: logging.Logger, line: Line | None, exc: BaseException | None = None) -> None:
    """Log `line`, with its fields as `extra["outlast"]`, and the traceback of `exc` where the line asks for it.

    None is no line and logs nothing, so that decisions can be passed on as they come.
    """
    if line is None:
        return
    exc_info = exc if line.with_traceback and exc is not None else None
    logger.log(line.level, "%s", line.text, exc_info=exc_info, extra={"outlast": dict(line.fields)})

"""Hand a `Line` of the core to stdlib logging."""

from __future__ import annotations

from typing import TYPE_CHECKING

from outlast.logs._delivery import Origin, deliver

if TYPE_CHECKING:
    import logging

    from outlast._core.incidents import Line


def write(logger: logging.Logger, line: Line | None, exc: BaseException | None = None) -> None:
    """Log `line`, with its fields as `record.outlast`, and the traceback of `exc` where the line asks for it.

    None is no line and logs nothing, so that decisions can be passed on as they come. It has counts: a formatter that raises
    costs the line its format, and nothing else.
    """
    if line is None:
        return
    origin = Origin(logger, line.level, __file__, write.__code__.co_firstlineno, "write", {})
    deliver(origin, line.text, line.fields, exc if line.with_traceback else None)

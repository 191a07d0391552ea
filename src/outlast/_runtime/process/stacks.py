"""The place where a task or a thread stands, for the one who has to find out why it does not end."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from types import FrameType

DEPTH_MAX: Final = 12
"""The innermost frames say where it hangs; those beyond this many are left out."""

MACHINERY: Final = (asyncio.__file__.rpartition("/")[0], __file__.rsplit("/", 2)[0])
"""The frames of asyncio and of this package are left out where there are others: the line that awaits says what is awaited."""


def task_stack(task: asyncio.Task[Any]) -> tuple[str, ...]:
    """Return the awaits of a suspended task, outermost first: `function (file.py:12)`. Empty for one that has ended."""
    frames: list[FrameType] = []
    seen: object = task.get_coro()
    while seen is not None:
        frame = _first(seen, "cr_frame", "gi_frame", "ag_frame")
        if frame is None:
            break
        # A supervised body is driven step by step, and not awaited, by `metered`.
        driven = frame.f_locals.get("coroutine") if frame.f_code.co_name == "metered" else None
        if driven is None:
            frames.append(frame)
        seen = driven if driven is not None else _first(seen, "cr_await", "gi_yieldfrom", "ag_await")
    return _shown(frames)


def thread_stack(ident: int | None) -> tuple[str, ...]:
    """Return the frames of a thread, outermost first. Empty for one that has ended."""
    frame = sys._current_frames().get(ident or 0)  # noqa: SLF001  # pyright: ignore[reportPrivateUsage] # documented
    frames: list[FrameType] = []
    while frame is not None:
        frames.append(frame)
        frame = frame.f_back
    return _shown(frames[::-1])


def _first(seen: object, *names: str) -> Any:  # noqa: ANN401 - what awaits what has no common type
    return next((value for name in names if (value := getattr(seen, name, None)) is not None), None)


def _shown(frames: list[FrameType]) -> tuple[str, ...]:
    theirs = [frame for frame in frames if not frame.f_code.co_filename.startswith(MACHINERY)]
    return tuple(_place(frame) for frame in (theirs or frames)[-DEPTH_MAX:])


def _place(frame: FrameType) -> str:
    code = frame.f_code
    return f"{code.co_name} ({code.co_filename.rpartition('/')[2]}:{frame.f_lineno})"

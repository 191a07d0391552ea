"""Child processes that this one still has, and their end: none is left behind.

**Whose exit status.** A status can be fetched once, and whoever started a child may be waiting for it: `subprocess`
would then report 0 for a child that was killed, asyncio 255, multiprocessing that it still runs. So nothing here fetches
the status of a child that this process started. Its owner does: asyncio when the event loop turns, `subprocess` and
multiprocessing when they are asked to tidy up, which `end` does. A child that has ended and that nobody asks about stays
in the process table until this process ends, costs one entry there, and runs no more; it counts as ended. The only
statuses fetched here are those of descendants that the kernel handed to this process when their parents had ended (as
it does to process 1 of a container): nobody here can be waiting for them.

**Where.** On Linux. Elsewhere, and where /proc is missing or belongs to another pid namespace, there seem to be none.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
from typing import TYPE_CHECKING, Final

from outlast._runtime.process import proc as process_files
from outlast._runtime.process.proc import Child, lives, stat

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = ["Child", "children", "end", "kill_all"]

KILL_S: Final = 1.0
"""The seconds that `end` waits for those it killed; the kernel takes longer only for one that waits for a disk."""
FREEZES_MAX: Final = 20
LOOK_S: Final = (0.01, 0.1)
"""The first and the longest pause between two looks."""
logger = logging.getLogger("outlast")


def children() -> tuple[Child, ...]:
    """Return the child processes that live now.

    Without the helpers that multiprocessing keeps (resource tracker, fork server), which end by themselves; with
    what the fork server started for this process. Raises `OSError` if it cannot look: no descriptors left.
    """
    if not process_files.readable():
        return ()
    helpers = process_files.helpers()
    found = process_files.children(os.getpid())
    for process in tuple(found):
        if process.pid in helpers:
            found += process_files.children(process.pid)
    return tuple(process for process in found if process.pid not in helpers)


async def end(children: Iterable[Child], grace_s: float, *, kill_s: float = KILL_S) -> tuple[Child, ...]:
    """End these and all below them: SIGTERM, then SIGKILL for those that live after `grace_s` seconds.

    SIGTERM goes to `children`, who end their own children as they see fit, and to a descendant once its parent has
    left it behind. Returns those that had to be killed. Takes at most `grace_s`, and then `kill_s` for the kernel to end
    the killed. If cancelled, those that live are killed at once. One that this process may not signal, or that the kernel
    cannot end, is left: `children` still names it. Raises `OSError` if it cannot look.
    """
    family, asked = dict.fromkeys(children), set[Child]()
    loop = asyncio.get_running_loop()
    over_at, pause_s = loop.time() + grace_s, LOOK_S[0]
    first = tuple(family)
    # Before anybody is asked: what a child leaves behind could not be found any more.
    _look(family)
    for process in first:
        asked.add(process)
        _ask(process)
    try:
        while alive := _look(family):
            for process in alive:
                if process not in asked and _left_behind(process):
                    asked.add(process)
                    _ask(process)
            left_s = over_at - loop.time()
            if left_s <= 0:
                break
            await asyncio.sleep(min(left_s, pause_s))
            pause_s = min(2 * pause_s, LOOK_S[1])
    except asyncio.CancelledError:
        _kill(lambda: _look(family))
        raise
    killed = _kill(lambda: _look(family))
    over_at = loop.time() + kill_s
    while _look(family) and loop.time() < over_at:  # noqa: ASYNC110 - no event tells when a descendant has ended
        await asyncio.sleep(LOOK_S[0])
    return killed


def kill_all() -> tuple[Child, ...]:
    """Send SIGKILL to every descendant, and give them. It waits for nothing, and may be called again.

    For the last moments: from a signal handler of Python, or before `os._exit`. They are stopped first, until a look
    finds no new one, so that none slips away by starting another. What this process starts meanwhile, in
    another thread, is not seen. multiprocessing's helpers are left, to clean up after this process.
    Never raises `OSError`: if it cannot look, that is one WARNING.
    """
    try:
        if not process_files.readable():
            return ()
        helpers = process_files.helpers()
        return _kill(lambda: process_files.below([os.getpid()], leaving_out=helpers))
    except OSError as error:
        logger.warning("child processes may be left behind: cannot look for them: %s", error)
        return ()


def _look(family: dict[Child, None]) -> list[Child]:
    """Add what is below the family to it, and give those that live."""
    alive = [process for process in family if lives(process)]
    # Afterwards: a look that finds nobody alive is the last one, and leaves no status behind.
    _tidy_up(family)
    found = process_files.below([process.pid for process in alive]) if alive else []
    family |= dict.fromkeys(found)
    return [*dict.fromkeys([*alive, *found])]


def _kill(find: Callable[[], list[Child]]) -> tuple[Child, ...]:
    """Stop whatever `find` returns until it returns nothing new, then kill it."""
    frozen: dict[Child, None] = {}
    for _ in range(FREEZES_MAX):
        new = [process for process in find() if process not in frozen]
        if not new:
            break
        for process in new:
            _send(process, signal.SIGSTOP)
        frozen |= dict.fromkeys(new)
    return tuple(process for process in frozen if _send(process, signal.SIGKILL))


def _ask(process: Child) -> None:
    _send(process, signal.SIGTERM)
    if (seen := stat(process.pid)) is not None and seen.state == "T":
        # Somebody has stopped it: it hears nothing before it goes on.
        _send(process, signal.SIGCONT)


def _send(process: Child, number: signal.Signals) -> bool:
    """Signal this very process, or nobody; says whether it lived and could be signalled."""
    try:
        handle = os.pidfd_open(process.pid) if hasattr(os, "pidfd_open") else None
    except OSError:
        # It is gone; or there are no descriptors left, or the kernel is older than Linux 5.3.
        handle = None
    try:
        # With the handle held, what is seen alive here is what gets the signal.
        if not lives(process):
            return False
        if handle is not None:
            signal.pidfd_send_signal(handle, number)
        else:
            os.kill(process.pid, number)
    except (ProcessLookupError, PermissionError):
        return False
    finally:
        if handle is not None:
            os.close(handle)
    return True


def _left_behind(process: Child) -> bool:
    seen = stat(process.pid)
    return seen is not None and seen.parent_pid != process.parent_pid


def _tidy_up(family: Iterable[Child]) -> None:
    """Let the owners of ended children fetch their statuses, and fetch those that have no owner."""
    for module, function in (("subprocess", "_cleanup"), ("multiprocessing.process", "active_children")):
        # Both only ask, and keep the status for whoever holds the object.
        tidy = getattr(sys.modules.get(module), function, None)
        if tidy is not None:
            tidy()
    own = os.getpid()
    for process in family:
        if process.parent_pid == own:
            continue
        seen = stat(process.pid)
        if seen is not None and seen.dead and seen.parent_pid == own and seen.start_ticks == process.start_ticks:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(process.pid, os.WNOHANG)

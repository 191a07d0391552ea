"""A handle of one record: every answer to a submission has one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from outlast.procedures._model import ProcedureRecord, ProcedureState
    from outlast.procedures._procedures import Procedures


class ProcedureHandle:
    """A record of a procedure, in this process or any other that shares the store.

    `id` is that of the record; "" if a submission was refused before a record was known: then the handle stands for whatever
    record has the key.
    """

    __slots__ = ("_procedures", "id", "key", "kind", "live_at")

    def __init__(
        self,
        procedures: Procedures,
        id: str,  # noqa: A002 - the name it has everywhere
        kind: str,
        key: str,
        live_at: float | None = None,
    ) -> None:
        self._procedures = procedures
        self.id = id
        self.kind = kind
        self.key = key
        self.live_at = live_at
        """The time on the event loop's clock at which the record was live, as far as this process knew; None: unknown."""

    def __repr__(self) -> str:
        """Show which record it is; nothing is read."""
        return f"<ProcedureHandle {self.kind}/{self.key} {self.id or 'of the key'}>"

    async def get(self) -> ProcedureRecord | None:
        """Read the record; None if there is none any more."""
        return await self._procedures.look_up(self)

    async def wait(self, timeout_s: float | None = None) -> Any:  # noqa: ANN401 - anything that is JSON
        """Wait for the end and return the result.

        Raises `ProcedureFailedError`, `ProcedureCancelledError`, `ProcedureExpiredError`, `ProcedureGoneError`, and
        `WaitTimeoutError` after `timeout_s` seconds (None: no limit). If the wait is cancelled the procedure goes on.
        """
        return await self._procedures.await_end(self, timeout_s)

    async def cancel(self, timeout_s: float | None = None) -> ProcedureState | None:
        """Ask for the end, wait for it, and return the state that holds. See `Procedures.cancel`."""
        return await self._procedures.end(self, timeout_s)

"""The errors of what etcd refuses."""

from __future__ import annotations

from outlast import Fault, Kind, OutlastError, Scope

OUT_OF_RANGE = 11
"""The number of gRPC's status for a revision that is too old."""


class EtcdError(OutlastError):
    """etcd answered with an error. `outlast.extend.attached(error)` is the fault: whom it concerns.

    `grpc_code` is the number of gRPC's status, `said` what etcd says itself. After an error it is not known whether a write was
    done, not even after NOSPACE: read again what it should have changed.
    """

    def __init__(self, asked: str, grpc_code: int, said: str) -> None:
        super().__init__(f"{asked}: {said}")
        self.asked = asked
        """The name of the cluster and what was asked of it."""
        self.grpc_code = grpc_code
        self.said = said

    def __reduce__(self) -> tuple[type[EtcdError], tuple[str | int, ...]]:
        """Travel to another process."""
        return type(self), (self.asked, self.grpc_code, self.said)


class LeaseLostError(EtcdError):
    """The lease is over, or was revoked, and its keys are gone. Grant another one, and write them again."""


class CompactedError(EtcdError):
    """The revision is no longer kept. Read again, and go on from the revision of that.

    `oldest` is the oldest revision there is, 0 if etcd did not say.
    """

    def __init__(self, asked: str, grpc_code: int, said: str, oldest: int = 0) -> None:
        super().__init__(asked, grpc_code, said)
        self.oldest = oldest

    def __reduce__(self) -> tuple[type[EtcdError], tuple[str | int, ...]]:
        """Travel to another process."""
        return type(self), (self.asked, self.grpc_code, self.said, self.oldest)


class RequestTooLargeError(OutlastError):
    """A key, a value or a transaction is larger than etcd would take: nothing was sent."""

    def __init__(self, source: str, text: str) -> None:
        super().__init__(f"{source}: {text}", Fault(Kind.REJECTED, "too large", text, source, Scope.CALL))
        self.source = source
        self.text = text

    def __reduce__(self) -> tuple[type[RequestTooLargeError], tuple[str, str]]:
        """Travel to another process."""
        return type(self), (self.source, self.text)


class RangeTooLargeError(OutlastError):
    """There are more keys below the prefix than are read at once: give a `limit`, and go on with `beyond`."""

    def __init__(self, source: str, text: str) -> None:
        super().__init__(f"{source}: {text}", Fault(Kind.REJECTED, "range too large", text, source, Scope.CALL))
        self.source = source
        self.text = text

    def __reduce__(self) -> tuple[type[RangeTooLargeError], tuple[str, str]]:
        """Travel to another process."""
        return type(self), (self.source, self.text)

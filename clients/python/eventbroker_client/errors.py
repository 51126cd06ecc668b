"""Everything that can go wrong, by name.

One class is one fact. `reason` is the broker's stable reason, `metadata` the values that belong to it, `retryable`
whether the same call may succeed later. What the transport raises never comes out of this package: it is translated by
connection/failure.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class EventBrokerError(Exception):
    """The broker, or the way to it, failed."""

    reason: str = "INTERNAL"
    retryable: ClassVar[bool] = False

    def __init__(self, message: str = "", *, reason: str = "", metadata: Mapping[str, str] | None = None) -> None:
        self.message = message or " ".join((type(self).__doc__ or "").split())
        self.reason = reason or type(self).reason
        self.metadata: dict[str, str] = dict(metadata or {})
        super().__init__(self.message)

    def __str__(self) -> str:
        return f"{self.reason}: {self.message}"


@dataclass(frozen=True, slots=True)
class Violation:
    """A field, by its path (such as "aggregate_id", or "events[2].tenant_id"), and the rule that it breaks."""

    field: str
    rule: str


class InvalidArgument(EventBrokerError):
    """What was sent breaks rules; nothing was done. `violations` names each field and its rule."""

    reason = "INVALID_ARGUMENT"

    def __init__(
        self,
        message: str = "",
        *,
        reason: str = "",
        metadata: Mapping[str, str] | None = None,
        violations: Sequence[Violation] = (),
    ) -> None:
        self.violations = tuple(violations)
        told = "; ".join(f"{violation.field} {violation.rule}" for violation in self.violations[:5])
        super().__init__(message or told, reason=reason, metadata=metadata)


class EventIdReused(EventBrokerError):
    """The event id is in use for an event with other content; nothing was stored."""

    reason = "EVENT_ID_REUSED"


@dataclass(frozen=True, slots=True)
class Conflict:
    """An aggregate, as "User/u1", that was not as expected, and what was expected and found."""

    aggregate: str
    description: str


class VersionConflict(EventBrokerError):
    """An aggregate is not at the version that was expected; nothing was stored. Read it again and decide anew."""

    reason = "VERSION_CONFLICT"

    def __init__(
        self,
        message: str = "",
        *,
        reason: str = "",
        metadata: Mapping[str, str] | None = None,
        conflicts: Sequence[Conflict] = (),
    ) -> None:
        self.conflicts = tuple(conflicts)
        super().__init__(message, reason=reason, metadata=metadata)


class NotFound(EventBrokerError):
    """There is no such thing."""

    reason = "NOT_FOUND"


class EventNotFound(NotFound):
    """The tenant has no such event."""

    reason = "EVENT_NOT_FOUND"


class GroupNotFound(NotFound):
    """There is no such group, and the broker does not make it."""

    reason = "GROUP_NOT_FOUND"


class GroupMismatch(EventBrokerError):
    """The group exists with other event types or another deadline than asked for; `metadata` tells the actual ones."""

    reason = "GROUP_MISMATCH"


class GroupDeleted(EventBrokerError):
    """The group was deleted while it was consumed. To consume again makes it anew."""

    reason = "GROUP_DELETED"


class ConsumerReplaced(EventBrokerError):
    """Another stream was opened with the same consumer id, and took over."""

    reason = "CONSUMER_REPLACED"


class Unauthenticated(EventBrokerError):
    """The call carries no valid credential."""

    reason = "UNAUTHENTICATED"


class PermissionDenied(EventBrokerError):
    """The caller may not do this, or not for this tenant; nothing was done."""

    reason = "PERMISSION_DENIED"


class Overloaded(EventBrokerError):
    """Too much is under way at the broker; nothing was done. `retry_after` is in seconds."""

    reason = "OVERLOADED"
    retryable = True

    def __init__(
        self,
        message: str = "",
        *,
        reason: str = "",
        metadata: Mapping[str, str] | None = None,
        retry_after: float = 0.0,
    ) -> None:
        self.retry_after = retry_after
        super().__init__(message, reason=reason, metadata=metadata)


class Unavailable(EventBrokerError):
    """The broker, or its store, could not be reached, or did not answer; whether anything was done is not known.

    It was tried again until the call's deadline. To publish again with the same ids is safe.
    """

    reason = "UNAVAILABLE"
    retryable = True


class PayloadMismatch(EventBrokerError):
    """The event's data does not fit the class that is registered for its type."""

    reason = "PAYLOAD_MISMATCH"


class Closed(EventBrokerError):
    """The broker object was closed before this could be done; nothing was sent for it since."""

    reason = "CLOSED"

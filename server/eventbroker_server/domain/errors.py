"""Everything that can go wrong, by name.

One class is one fact. Its docstring is the message; `reason` is stable and goes to callers in ErrorInfo, with the
values in `details`. A definite error says that nothing was changed; `retryable` says that the same call may succeed
later. rpc/status.py maps each class to a gRPC status, and a test fails if one is missing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from collections.abc import Sequence


class BrokerError(Exception):
    """The broker could not do what was asked."""

    reason: ClassVar[str] = "INTERNAL"
    retryable: ClassVar[bool] = False

    def __init__(self, **details: object) -> None:
        self.details = {name: str(value) for name, value in details.items()}
        super().__init__(self.message())

    def message(self) -> str:
        text = " ".join((type(self).__doc__ or "").split())
        if self.details:
            text += " (" + ", ".join(f"{name}: {value}" for name, value in self.details.items()) + ")"
        return text


@dataclass(frozen=True, slots=True)
class Violation:
    """A field, by its path in the request, and the rule that it breaks."""

    field: str
    rule: str


class InvalidArgument(BrokerError):
    """The request breaks rules."""

    reason = "INVALID_ARGUMENT"

    def __init__(self, violations: list[Violation]) -> None:
        self.violations = violations
        super().__init__()

    def message(self) -> str:
        shown = "; ".join(f"{v.field} {v.rule}" for v in self.violations[:5])
        more = len(self.violations) - 5
        return shown + (f"; and {more} more" if more > 0 else "")


class EventIdReused(BrokerError):
    """The event id is in use for an event with other content."""

    reason = "EVENT_ID_REUSED"


@dataclass(frozen=True, slots=True)
class Conflict:
    """An aggregate that was not as expected. `expected` is a version, "none" or "exists"."""

    aggregate_type: str
    aggregate_id: str
    expected: str
    actual: int


class VersionConflict(BrokerError):
    """An aggregate is not at the version that was expected."""

    reason = "VERSION_CONFLICT"

    def __init__(self, conflicts: list[Conflict]) -> None:
        self.conflicts = conflicts
        first = conflicts[0]
        super().__init__(
            aggregate_type=first.aggregate_type,
            aggregate_id=first.aggregate_id,
            expected=first.expected,
            actual=first.actual,
        )


class EventNotFound(BrokerError):
    """There is no such event."""

    reason = "EVENT_NOT_FOUND"


class AggregateNotFound(BrokerError):
    """The aggregate has no event, or had none then."""

    reason = "AGGREGATE_NOT_FOUND"


class VersionBeyond(BrokerError):
    """The aggregate has not come to the version that was asked for."""

    reason = "VERSION_BEYOND"


class PositionBeyond(BrokerError):
    """The log has not come to the position to begin after."""

    reason = "POSITION_BEYOND"


class SnapshotNotFound(BrokerError):
    """There is no such snapshot."""

    reason = "SNAPSHOT_NOT_FOUND"


class SnapshotAhead(BrokerError):
    """The aggregate has not come to the version of the snapshot; nothing was stored."""

    reason = "SNAPSHOT_AHEAD"


class GroupNotFound(BrokerError):
    """There is no such group."""

    reason = "GROUP_NOT_FOUND"

    def __init__(self, group: str = "", tenant_id: str = "") -> None:
        """Without a tenant one of all tenants is meant."""
        super().__init__(group=group, tenant_id=tenant_id)

    def message(self) -> str:
        tenant = self.details["tenant_id"]
        return f"There is no group {self.details['group']} of {f'tenant {tenant}' if tenant else 'all tenants'}."


class DeadLetterNotFound(BrokerError):
    """The group has no such dead letter."""

    reason = "DEAD_LETTER_NOT_FOUND"

    def __init__(self, group: str, event_ids: Sequence[str]) -> None:
        self.event_ids = event_ids
        super().__init__(group=group, event_ids=", ".join(event_ids))


class GroupMismatch(BrokerError):
    """The group exists with other properties than the request names."""

    reason = "GROUP_MISMATCH"


class GroupExists(BrokerError):
    """There is a group of that name already."""

    reason = "GROUP_EXISTS"


class GroupInUse(BrokerError):
    """Consumers of the group are connected; nothing was changed."""

    reason = "GROUP_IN_USE"


class Unauthenticated(BrokerError):
    """The call carries no valid credential."""

    reason = "UNAUTHENTICATED"


class PermissionDenied(BrokerError):
    """The caller may not do this."""

    reason = "PERMISSION_DENIED"


class TenantForbidden(PermissionDenied):
    """The tenant is not the caller's, or reserved."""

    reason = "TENANT_FORBIDDEN"


class Overloaded(BrokerError):
    """Too much is under way here; nothing was done."""

    reason = "OVERLOADED"
    retryable = True

    def __init__(self, what: str, limit: int, retry_after: float = 1.0) -> None:
        self.retry_after = retry_after
        super().__init__(what=what, limit=limit)


class ShuttingDown(BrokerError):
    """This broker is shutting down; nothing was done."""

    reason = "SHUTTING_DOWN"
    retryable = True


class StoreUnavailable(BrokerError):
    """PostgreSQL cannot be reached; whether anything was stored is not known. Retry with the same event ids."""

    reason = "STORE_UNAVAILABLE"
    retryable = True


class StreamsUnavailable(BrokerError):
    """Redis cannot be reached; whether anything was settled is not known. Retry."""

    reason = "STREAMS_UNAVAILABLE"
    retryable = True


class StartupError(BrokerError):
    """The broker cannot start."""

    reason = "STARTUP"


class BadSetting(StartupError):
    """A setting is wrong."""

    reason = "BAD_SETTING"

    def __init__(self, setting: str, rule: str) -> None:
        self.setting, self.rule = setting, rule
        super().__init__()

    def message(self) -> str:
        return f"{self.setting} {self.rule}"


class UnsafeStore(StartupError):
    """An engine is set so that it could lose what it was given."""

    reason = "UNSAFE_STORE"

    def __init__(self, problem: str, remedy: str) -> None:
        self.problem, self.remedy = problem, remedy
        super().__init__()

    def message(self) -> str:
        return f"{self.problem}. {self.remedy}"


class EngineError(StartupError):
    """An embedded engine cannot run."""

    reason = "ENGINE"

    def __init__(self, problem: str, remedy: str) -> None:
        self.problem, self.remedy = problem, remedy
        super().__init__()

    def message(self) -> str:
        return f"{self.problem}. {self.remedy}"


class BadExport(BrokerError):
    """The export is not what it should be; nothing was imported."""

    reason = "BAD_EXPORT"

    def __init__(self, line: int, rule: str) -> None:
        self.line, self.rule = line, rule
        super().__init__()

    def message(self) -> str:
        return f"line {self.line} {self.rule}; nothing was imported"


class TransferRefused(BrokerError):
    """This cannot be exported from here, or imported to here; nothing was changed."""

    reason = "TRANSFER_REFUSED"

    def __init__(self, why: str) -> None:
        self.why = why
        super().__init__()

    def message(self) -> str:
        return f"{self.why}; nothing was changed"

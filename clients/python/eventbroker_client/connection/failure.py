"""What gRPC raises, as an error of ours: by the reason in ErrorInfo, else by the status code; never by its text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc
from google.rpc import error_details_pb2, status_pb2

from eventbroker_client import errors
from eventbroker_client.errors import Conflict, EventBrokerError, Violation

if TYPE_CHECKING:
    from collections.abc import Sequence

    from eventbroker.v1.publisher_service_pb2 import PublishError

DOMAIN = "eventbroker"

BY_REASON: dict[str, type[EventBrokerError]] = {
    kind.reason: kind
    for kind in (
        errors.InvalidArgument,
        errors.EventIdReused,
        errors.VersionConflict,
        errors.EventNotFound,
        errors.GroupNotFound,
        errors.GroupMismatch,
        errors.Unauthenticated,
        errors.PermissionDenied,
        errors.Overloaded,
    )
} | {
    "TENANT_FORBIDDEN": errors.PermissionDenied,
    "SHUTTING_DOWN": errors.Unavailable,
    "STORE_UNAVAILABLE": errors.Unavailable,
    "STREAMS_UNAVAILABLE": errors.Unavailable,
}

BY_CODE: dict[grpc.StatusCode, type[EventBrokerError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: errors.InvalidArgument,
    grpc.StatusCode.NOT_FOUND: errors.NotFound,
    grpc.StatusCode.UNAUTHENTICATED: errors.Unauthenticated,
    grpc.StatusCode.PERMISSION_DENIED: errors.PermissionDenied,
    # Of these nobody knows what was done.
    grpc.StatusCode.UNAVAILABLE: errors.Unavailable,
    grpc.StatusCode.DEADLINE_EXCEEDED: errors.Unavailable,
    grpc.StatusCode.CANCELLED: errors.Unavailable,
    grpc.StatusCode.UNKNOWN: errors.Unavailable,
    grpc.StatusCode.INTERNAL: errors.Unavailable,
    grpc.StatusCode.DATA_LOSS: errors.Unavailable,
}


def error_of(failure: grpc.RpcError) -> EventBrokerError:
    """A call's failure, of the blocking or the asyncio transport."""
    call: Any = failure
    code: grpc.StatusCode = call.code()
    details = _details(call.trailing_metadata())
    message = call.details() or ""
    info = details.get("ErrorInfo")
    if info is None or info.domain != DOMAIN:
        return BY_CODE.get(code, EventBrokerError)(message, reason=code.name)
    kind = BY_REASON.get(info.reason) or BY_CODE.get(code, EventBrokerError)
    if kind is errors.Unavailable and code != grpc.StatusCode.UNAVAILABLE:
        kind = EventBrokerError  # the broker says itself that it failed, and that it did nothing
    more: dict[str, Any] = {}
    if kind is errors.InvalidArgument and (request := details.get("BadRequest")) is not None:
        more["violations"] = [Violation(each.field, each.description) for each in request.field_violations]
    elif kind is errors.VersionConflict and (failed := details.get("PreconditionFailure")) is not None:
        more["conflicts"] = [Conflict(each.subject, each.description) for each in failed.violations]
    elif kind is errors.Overloaded and (retry := details.get("RetryInfo")) is not None:
        more["retry_after"] = retry.retry_delay.ToTimedelta().total_seconds()
    return kind(message, reason=info.reason, metadata=info.metadata, **more)


def refusal_of(error: PublishError) -> EventBrokerError:
    """Why one event of a call was refused. Violations are named as fields of that event."""
    kind = BY_REASON.get(error.reason, EventBrokerError)
    more: dict[str, Any] = {}
    if kind is errors.InvalidArgument:
        more["violations"] = [Violation(_own(each.field), each.description) for each in error.violations]
    message = error.message if kind is not errors.InvalidArgument else ""
    return kind(message, reason=error.reason, **more)


def _own(field: str) -> str:
    """The field without its place in the call, which the caller does not know."""
    return field.partition("].")[2] if field.startswith("events[") else field


def _details(metadata: Sequence[tuple[str, str | bytes]] | None) -> dict[str, Any]:
    """The details of a status, by the name of their type."""
    found: dict[str, Any] = {}
    for key, value in metadata or ():
        if key != "grpc-status-details-bin":
            continue
        status = status_pb2.Status.FromString(value)
        for packed in status.details:
            kind = getattr(error_details_pb2, packed.TypeName().rpartition(".")[2], None)
            if kind is not None and packed.Unpack(detail := kind()):
                found[kind.DESCRIPTOR.name] = detail
    return found

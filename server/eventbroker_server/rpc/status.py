"""How errors look on the wire: the only table from the domain's errors to gRPC status codes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from google.protobuf import any_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

from eventbroker_server.domain import errors

if TYPE_CHECKING:
    import grpc
    from google.protobuf.message import Message

DOMAIN = "eventbroker"

CODES: dict[type[errors.BrokerError], int] = {
    errors.BrokerError: code_pb2.INTERNAL,
    errors.InvalidArgument: code_pb2.INVALID_ARGUMENT,
    errors.EventIdReused: code_pb2.ALREADY_EXISTS,
    errors.VersionConflict: code_pb2.ABORTED,
    errors.EventNotFound: code_pb2.NOT_FOUND,
    errors.GroupMismatch: code_pb2.FAILED_PRECONDITION,
    errors.Unauthenticated: code_pb2.UNAUTHENTICATED,
    errors.PermissionDenied: code_pb2.PERMISSION_DENIED,
    errors.TenantForbidden: code_pb2.PERMISSION_DENIED,
    errors.Overloaded: code_pb2.RESOURCE_EXHAUSTED,
    errors.ShuttingDown: code_pb2.UNAVAILABLE,
    errors.StoreUnavailable: code_pb2.UNAVAILABLE,
    errors.StreamsUnavailable: code_pb2.UNAVAILABLE,
    errors.StartupError: code_pb2.INTERNAL,
    errors.BadSetting: code_pb2.INTERNAL,
    errors.UnsafeStore: code_pb2.INTERNAL,
    errors.EngineError: code_pb2.INTERNAL,
}

_MOST_VIOLATIONS = 100  # what is sent of them: a status has to fit into the trailers
_MOST_CONFLICTS = 50


def status_of(error: errors.BrokerError) -> grpc.Status:
    """An error as a gRPC status with its details. ErrorInfo marks it as ours: a definite answer, unless retryable."""
    status = status_pb2.Status(code=CODES[type(error)], message=error.message()[:1000])
    for detail in _details(error):
        packed = any_pb2.Any()
        packed.Pack(detail)
        status.details.append(packed)
    converted: grpc.Status = rpc_status.to_status(status)
    return converted


def _details(error: errors.BrokerError) -> list[Message]:
    info = error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=error.details)
    details: list[Message] = [info]
    if isinstance(error, errors.InvalidArgument):
        shown = error.violations[:_MOST_VIOLATIONS]
        details.append(
            error_details_pb2.BadRequest(
                field_violations=[
                    error_details_pb2.BadRequest.FieldViolation(field=v.field[:300], description=v.rule) for v in shown
                ]
            )
        )
        info.metadata["violations"] = str(len(error.violations))
    elif isinstance(error, errors.VersionConflict):
        details.append(
            error_details_pb2.PreconditionFailure(
                violations=[
                    error_details_pb2.PreconditionFailure.Violation(
                        type="AGGREGATE_VERSION",
                        subject=f"{conflict.aggregate_type}/{conflict.aggregate_id}",
                        description=f"expected {conflict.expected}, actual {conflict.actual}",
                    )
                    for conflict in error.conflicts[:_MOST_CONFLICTS]
                ]
            )
        )
    elif isinstance(error, errors.Overloaded):
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.FromMilliseconds(int(error.retry_after * 1000))
        details.append(retry)
    elif isinstance(error, errors.EventNotFound):
        details.append(
            error_details_pb2.ResourceInfo(resource_type="event", resource_name=error.details.get("event_id"))
        )
    return details

"""How errors look on the wire: the only table from the domain's errors to gRPC status codes."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote

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
    errors.AggregateNotFound: code_pb2.NOT_FOUND,
    errors.VersionBeyond: code_pb2.OUT_OF_RANGE,
    errors.PositionBeyond: code_pb2.OUT_OF_RANGE,
    errors.SnapshotNotFound: code_pb2.NOT_FOUND,
    errors.SnapshotAhead: code_pb2.FAILED_PRECONDITION,
    errors.GroupNotFound: code_pb2.NOT_FOUND,
    errors.DeadLetterNotFound: code_pb2.NOT_FOUND,
    errors.GroupMismatch: code_pb2.FAILED_PRECONDITION,
    errors.GroupExists: code_pb2.ALREADY_EXISTS,
    errors.GroupNotFound: code_pb2.NOT_FOUND,
    errors.GroupInUse: code_pb2.FAILED_PRECONDITION,
    errors.Unauthenticated: code_pb2.UNAUTHENTICATED,
    errors.PermissionDenied: code_pb2.PERMISSION_DENIED,
    errors.TenantForbidden: code_pb2.PERMISSION_DENIED,
    errors.Overloaded: code_pb2.RESOURCE_EXHAUSTED,
    errors.ShuttingDown: code_pb2.UNAVAILABLE,
    errors.StreamNotRead: code_pb2.UNAVAILABLE,
    errors.StoreUnavailable: code_pb2.UNAVAILABLE,
    errors.StreamsUnavailable: code_pb2.UNAVAILABLE,
    errors.StartupError: code_pb2.INTERNAL,
    errors.BadSetting: code_pb2.INTERNAL,
    errors.UnsafeStore: code_pb2.INTERNAL,
    errors.EngineError: code_pb2.INTERNAL,
    errors.BadExport: code_pb2.INVALID_ARGUMENT,
    errors.TransferRefused: code_pb2.FAILED_PRECONDITION,
}

# Clients take trailers of 8 KiB, in which all of this stands in base64, and the message a second time.
_MOST_MESSAGE = 400  # bytes
_MOST_VALUE = 600
_MOST_DETAILS = 3_600
_MOST_TYPE_URL = 50  # with which each detail is packed


def status_of(error: errors.BrokerError) -> grpc.Status:
    """An error as a gRPC status with its details. ErrorInfo marks it as ours: but for UNAVAILABLE, nothing was done."""
    status = status_pb2.Status(code=CODES[type(error)], message=_cut(error.message(), _MOST_MESSAGE))
    for detail in _details(error):
        packed = any_pb2.Any()
        packed.Pack(detail)
        status.details.append(packed)
    converted: grpc.Status = rpc_status.to_status(status)
    return converted


def _cut(text: str, most: int) -> str:
    """Text of at most so many bytes, as a trailer spells it: what is not ASCII takes three for one."""
    if len(quote(text)) <= most:
        return text
    while len(quote(text)) > most - 3:
        text = text[: len(text) * 9 // 10]
    return text + "..."


def _details(error: errors.BrokerError) -> list[Message]:
    said = {name: _cut(value, _MOST_VALUE) for name, value in error.details.items()}
    info = error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=said)
    details: list[Message] = [info]
    if isinstance(error, errors.InvalidArgument):
        request = error_details_pb2.BadRequest()
        for violation in error.violations:
            if request.ByteSize() > _MOST_DETAILS:
                break  # the number of all is told below
            request.field_violations.add(field=violation.field, description=violation.rule)
        details.append(request)
        info.metadata["violations"] = str(len(error.violations))
    elif isinstance(error, errors.VersionConflict):
        failure = error_details_pb2.PreconditionFailure()
        for conflict in error.conflicts:
            if failure.ByteSize() > _MOST_DETAILS:
                break
            failure.violations.add(
                type="AGGREGATE_VERSION",
                subject=f"{conflict.aggregate_type}/{conflict.aggregate_id}",
                description=f"expected {conflict.expected}, actual {conflict.actual}",
            )
        details.append(failure)
        info.metadata["conflicts"] = str(len(error.conflicts))
    elif isinstance(error, errors.Overloaded):
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.FromMilliseconds(int(error.retry_after * 1000))
        details.append(retry)
    elif isinstance(error, errors.EventNotFound):
        details.append(
            error_details_pb2.ResourceInfo(resource_type="event", resource_name=error.details.get("event_id"))
        )
    elif isinstance(error, errors.DeadLetterNotFound):
        told = sum(detail.ByteSize() for detail in details)
        for event_id in error.event_ids:
            missing = error_details_pb2.ResourceInfo(resource_type="dead_letter", resource_name=event_id)
            told += missing.ByteSize() + _MOST_TYPE_URL
            if told > _MOST_DETAILS:
                break
            details.append(missing)
        info.metadata["dead_letters"] = str(len(error.event_ids))
    elif isinstance(error, (errors.GroupExists, errors.GroupNotFound)):
        details.append(error_details_pb2.ResourceInfo(resource_type="group", resource_name=error.details.get("group")))
    return details

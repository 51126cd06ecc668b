"""The broker's no, with the details that the contract promises."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from google.protobuf import any_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    import grpc
    from eventbroker.v1.publisher_service_pb2 import PublishError
    from google.protobuf.message import Message

Violation = tuple[str, str]  # field and rule

CODES = {
    "INVALID_ARGUMENT": code_pb2.INVALID_ARGUMENT,
    "EVENT_ID_REUSED": code_pb2.ALREADY_EXISTS,
    "GROUP_EXISTS": code_pb2.ALREADY_EXISTS,
    "VERSION_CONFLICT": code_pb2.ABORTED,
    "GROUP_MISMATCH": code_pb2.FAILED_PRECONDITION,
    "EVENT_NOT_FOUND": code_pb2.NOT_FOUND,
    "AGGREGATE_NOT_FOUND": code_pb2.NOT_FOUND,
    "SNAPSHOT_NOT_FOUND": code_pb2.NOT_FOUND,
    "VERSION_BEYOND": code_pb2.OUT_OF_RANGE,
    "POSITION_BEYOND": code_pb2.OUT_OF_RANGE,
    "SNAPSHOT_AHEAD": code_pb2.FAILED_PRECONDITION,
    "GROUP_NOT_FOUND": code_pb2.NOT_FOUND,
    "DEAD_LETTER_NOT_FOUND": code_pb2.NOT_FOUND,
    "NOT_IN_MEMORY": code_pb2.UNIMPLEMENTED,
}


class Refused(Exception):
    """`violations` are of INVALID_ARGUMENT, `conflicts` of VERSION_CONFLICT: aggregate and what is wrong with it."""

    def __init__(
        self,
        reason: str,
        message: str = "",
        *,
        violations: Iterable[Violation] = (),
        conflicts: Iterable[tuple[str, str]] = (),
        **metadata: str,
    ) -> None:
        super().__init__(message or reason)
        self.reason, self.violations = reason, list(violations)
        self._conflicts, self._metadata = list(conflicts), metadata

    def tell(self, error: PublishError, within: str = "") -> None:
        error.reason, error.message, error.code = self.reason, str(self), CODES[self.reason]
        for field, rule in self.violations:
            error.violations.add(field=within + field, description=rule)

    def status(self) -> grpc.Status:
        details: list[Message] = [
            error_details_pb2.ErrorInfo(reason=self.reason, domain="eventbroker", metadata=self._metadata)
        ]
        if self.violations:
            bad = error_details_pb2.BadRequest()
            for field, rule in self.violations:
                bad.field_violations.add(field=field, description=rule)
            details.append(bad)
        if self._conflicts:
            failure = error_details_pb2.PreconditionFailure()
            for subject, description in self._conflicts:
                failure.violations.add(type="AGGREGATE_VERSION", subject=subject, description=description)
            details.append(failure)
        status = status_pb2.Status(code=CODES[self.reason], message=str(self))
        for detail in details:
            packed = any_pb2.Any()
            packed.Pack(detail)
            status.details.append(packed)
        converted: grpc.Status = rpc_status.to_status(status)
        return converted


def refuse_if(violations: list[Violation]) -> None:
    """Raises Refused."""
    if violations:
        raise Refused("INVALID_ARGUMENT", "; ".join(" ".join(each) for each in violations), violations=violations)


def knows_only(request: Message, *fields: str) -> None:
    """Raises Refused if the request asks for more than that, instead of doing something else."""
    unknown = [field.name for field, _ in request.ListFields() if field.name not in fields]
    if unknown:
        raise Refused("NOT_IN_MEMORY", f"the broker in memory knows no {', '.join(unknown)}")


def refusing(method: Callable[[Any, Any, Any], Awaitable[Any]]) -> Callable[[Any, Any, Any], Awaitable[Any]]:
    """A call of a service that may raise Refused."""

    @functools.wraps(method)
    async def call(self: Any, request: Any, context: Any) -> Any:
        try:
            return await method(self, request, context)
        except Refused as refused:
            await context.abort_with_status(refused.status())

    return call

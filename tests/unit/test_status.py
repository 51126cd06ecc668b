from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote

import eventbroker_server.app  # noqa: F401 - loads every part, and so every error
import pytest
from eventbroker_server.domain import errors
from eventbroker_server.rpc.status import CODES, status_of
from google.rpc import code_pb2, error_details_pb2, status_pb2

if TYPE_CHECKING:
    from collections.abc import Iterator

    from google.protobuf.message import Message

M = TypeVar("M", bound="Message")

CONFLICTS = [errors.Conflict("User", f"u{number}", "none", number) for number in range(1, 4)]
VIOLATIONS = [errors.Violation(f"events[{number}].event_id", f"breaks rule {number}") for number in range(3)]
ARGUMENTS: dict[type[errors.BrokerError], tuple[Any, ...]] = {
    errors.InvalidArgument: (VIOLATIONS,),
    errors.VersionConflict: (CONFLICTS,),
    errors.DeadLetterNotFound: ("billing", ["e1", "e2"]),
    errors.Overloaded: ("streams", 10, 2.5),
    errors.BadSetting: ("port", "is taken"),
    errors.UnsafeStore: ("it forgets", "Make it remember"),
    errors.EngineError: ("it is missing", "Install it"),
    errors.BadExport: (7, "is not JSON"),
    errors.TransferRefused: ("there are events",),
}
TRAILERS = 8192 - 512  # what clients take unless told otherwise, less what gRPC adds
PLAIN = "".join(map(chr, range(0x20, 0x7F))).replace("%", "")  # what gRPC does not escape in a message


def all_errors(base: type[errors.BrokerError] = errors.BrokerError) -> Iterator[type[errors.BrokerError]]:
    yield base
    for kind in base.__subclasses__():
        yield from all_errors(kind)


ERRORS = list(all_errors())
each_error = pytest.mark.parametrize("kind", ERRORS, ids=lambda kind: kind.__name__)


def sent(error: errors.BrokerError) -> status_pb2.Status:
    """The status as a client gets it."""
    ((_, value),) = status_of(error).trailing_metadata or ()
    return status_pb2.Status.FromString(value)


def detail(error: errors.BrokerError, kind: type[M]) -> M:
    (packed,) = [packed for packed in sent(error).details if packed.Is(kind.DESCRIPTOR)]
    found = kind()
    packed.Unpack(found)
    return found


@each_error
def test_every_error_has_a_code(kind: type[errors.BrokerError]) -> None:
    assert CODES[kind] not in (code_pb2.OK, code_pb2.UNKNOWN)


def test_no_code_is_kept_for_an_error_that_is_gone() -> None:
    assert set(CODES) == set(ERRORS)


def test_the_reasons_of_errors_differ() -> None:
    reasons = [kind.reason for kind in ERRORS]
    assert sorted(reasons) == sorted(set(reasons))


@each_error
def test_a_code_invites_to_retry_where_the_error_does(kind: type[errors.BrokerError]) -> None:
    assert (CODES[kind] in (code_pb2.UNAVAILABLE, code_pb2.RESOURCE_EXHAUSTED)) == kind.retryable


@each_error
def test_every_error_carries_its_reason(kind: type[errors.BrokerError]) -> None:
    error = kind(*ARGUMENTS.get(kind, ()))
    info = detail(error, error_details_pb2.ErrorInfo)
    assert (info.reason, info.domain) == (kind.reason, "eventbroker")
    assert info.metadata.items() >= error.details.items()
    assert sent(error).message == error.message() != ""
    assert sent(error).code == CODES[kind]


def test_an_invalid_argument_names_every_field_with_its_rule() -> None:
    told = detail(errors.InvalidArgument(VIOLATIONS), error_details_pb2.BadRequest)
    assert [errors.Violation(each.field, each.description) for each in told.field_violations] == VIOLATIONS


def test_an_invalid_argument_tells_how_many_violations_there_are_in_all() -> None:
    info = detail(errors.InvalidArgument(VIOLATIONS * 500), error_details_pb2.ErrorInfo)
    assert info.metadata["violations"] == "1500"


def test_a_version_conflict_names_every_aggregate_with_its_version() -> None:
    told = detail(errors.VersionConflict(CONFLICTS), error_details_pb2.PreconditionFailure)
    assert [(each.type, each.subject, each.description) for each in told.violations] == [
        ("AGGREGATE_VERSION", "User/u1", "expected none, actual 1"),
        ("AGGREGATE_VERSION", "User/u2", "expected none, actual 2"),
        ("AGGREGATE_VERSION", "User/u3", "expected none, actual 3"),
    ]


def test_an_overload_tells_when_to_come_back() -> None:
    told = detail(errors.Overloaded("streams", 10, retry_after=2.5), error_details_pb2.RetryInfo)
    assert told.retry_delay.ToMilliseconds() == 2500


def test_a_group_mismatch_tells_the_actual_filter() -> None:
    mismatch = errors.GroupMismatch(group="billing", event_types="user.*", ack_deadline_seconds="30")
    info = detail(mismatch, error_details_pb2.ErrorInfo)
    assert info.metadata == {"group": "billing", "event_types": "user.*", "ack_deadline_seconds": "30"}


def test_a_missing_event_is_named() -> None:
    told = detail(errors.EventNotFound(tenant_id="acme", event_id="e1"), error_details_pb2.ResourceInfo)
    assert (told.resource_type, told.resource_name) == ("event", "e1")


def test_each_missing_dead_letter_is_named() -> None:
    status = sent(errors.DeadLetterNotFound("billing", ["e1", "e2"]))
    resources = [error_details_pb2.ResourceInfo() for _ in status.details[1:]]
    for packed, resource in zip(status.details[1:], resources, strict=True):
        packed.Unpack(resource)
    assert [(each.resource_type, each.resource_name) for each in resources] == [
        ("dead_letter", "e1"),
        ("dead_letter", "e2"),
    ]


LONG_ID = "🙂" * 256


@pytest.mark.parametrize(
    "error",
    [
        errors.InvalidArgument([errors.Violation("events[999].aggregate_id", "must be short. " * 5)] * 1000),
        errors.InvalidArgument([errors.Violation(f'metadata.attributes["{"k" * 128}"]', "rule " * 12)] * 1000),
        errors.VersionConflict([errors.Conflict("T" * 128, LONG_ID, "exists", 2**60)] * 1000),
        errors.EventIdReused(event_id=LONG_ID, tenant_id="t" * 128),
        errors.EventNotFound(event_id=LONG_ID, tenant_id="t" * 128),
        errors.DeadLetterNotFound("g" * 128, [LONG_ID] * 1000),
        errors.DeadLetterNotFound("g" * 128, [str(number) for number in range(1000)]),
        errors.GroupMismatch(group="g" * 128, event_types=",".join(["t" * 130] * 100), ack_deadline_seconds="30"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_the_largest_status_fits_into_the_trailers_that_clients_take(error: errors.BrokerError) -> None:
    status = status_of(error)
    trailers = [("grpc-message", quote(status.details or "", safe=PLAIN).encode()), *(status.trailing_metadata or ())]
    assert sum(len(key) + len(value) + 32 for key, value in trailers) <= TRAILERS

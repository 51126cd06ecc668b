"""What the transport raises, as errors of the SDK."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc
import pytest
from eventbroker_client import errors
from eventbroker_client.connection.failure import BY_REASON, error_of
from eventbroker_server.domain import errors as of_the_server
from eventbroker_server.rpc.status import CODES, status_of

if TYPE_CHECKING:
    from google.protobuf.message import Message


class Failed(grpc.RpcError):
    """A call that failed with this status."""

    def __init__(self, status: Any) -> None:
        self._status = status

    def code(self) -> grpc.StatusCode:
        code: grpc.StatusCode = self._status.code
        return code

    def details(self) -> str:
        return str(self._status.details)

    def trailing_metadata(self) -> Any:
        return self._status.trailing_metadata


class Bare:
    """A status without details, as the transport or a proxy makes one."""

    def __init__(self, code: grpc.StatusCode, *details: Message) -> None:
        self.code = code
        self.details = "text"
        self.trailing_metadata = (("server", "proxy"),)


def told(error: of_the_server.BrokerError) -> errors.EventBrokerError:
    return error_of(Failed(status_of(error)))


def test_bad_input_keeps_its_violations() -> None:
    violations = [of_the_server.Violation("a", "must be b"), of_the_server.Violation("c", "is required")]
    error = told(of_the_server.InvalidArgument(violations))
    assert isinstance(error, errors.InvalidArgument)
    assert error.violations == (errors.Violation("a", "must be b"), errors.Violation("c", "is required"))
    assert error.metadata == {"violations": "2"}


def test_a_conflict_keeps_what_was_expected_and_found() -> None:
    error = told(of_the_server.VersionConflict([of_the_server.Conflict("User", "u1", "3", 4)]))
    assert isinstance(error, errors.VersionConflict)
    assert error.conflicts == (errors.Conflict("User/u1", "expected 3, actual 4"),)
    assert (error.reason, error.metadata["actual"]) == ("VERSION_CONFLICT", "4")


def test_too_much_tells_when_to_come_back() -> None:
    error = told(of_the_server.Overloaded("calls", 3, retry_after=2.5))
    assert isinstance(error, errors.Overloaded)
    assert (error.retry_after, error.retryable) == (2.5, True)


@pytest.mark.parametrize("kind", CODES, ids=lambda kind: kind.__name__)
def test_each_error_of_the_broker_keeps_its_reason(kind: type[of_the_server.BrokerError]) -> None:
    arguments: dict[str, Any] = {
        "InvalidArgument": {"violations": []},
        "VersionConflict": {"conflicts": [of_the_server.Conflict("A", "a", "1", 2)]},
        "DeadLetterNotFound": {"group": "g", "event_ids": ["e"]},
        "Overloaded": {"what": "calls", "limit": 1},
        "BadSetting": {"setting": "port", "rule": "is bad"},
        "UnsafeStore": {"problem": "p", "remedy": "r"},
        "EngineError": {"problem": "p", "remedy": "r"},
        "BadExport": {"line": 1, "rule": "is bad"},
        "TransferRefused": {"why": "w"},
    }
    error = told(kind(**arguments.get(kind.__name__, {})))
    assert error.reason == kind.reason
    assert type(error) is BY_REASON.get(kind.reason, type(error))
    if error.retryable:
        assert kind.retryable


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (grpc.StatusCode.UNAVAILABLE, errors.Unavailable),
        (grpc.StatusCode.DEADLINE_EXCEEDED, errors.Unavailable),
        (grpc.StatusCode.INTERNAL, errors.Unavailable),
        (grpc.StatusCode.UNAUTHENTICATED, errors.Unauthenticated),
        (grpc.StatusCode.UNIMPLEMENTED, errors.EventBrokerError),
    ],
)
def test_without_a_reason_the_code_decides(code: grpc.StatusCode, kind: type[errors.EventBrokerError]) -> None:
    error = error_of(Failed(Bare(code)))
    assert type(error) is kind
    assert (error.reason, str(error)) == (code.name, f"{code.name}: text")

from __future__ import annotations

import pytest
from eventbroker_server.domain.errors import InvalidArgument, Violation
from eventbroker_server.rpc.rules import raise_if_any, seconds_of
from google.protobuf.duration_pb2 import Duration


def test_violations_are_raised_together() -> None:
    violations = [Violation("a", "is bad"), Violation("b", "is worse")]
    raise_if_any([])
    with pytest.raises(InvalidArgument, match="a is bad; b is worse") as raised:
        raise_if_any(violations)
    assert raised.value.violations == violations


@pytest.mark.parametrize(
    ("duration", "good"), [(1.0, True), (5.5, True), (0.999, False), (5.501, False), (-2.0, False)]
)
def test_a_duration_is_taken_within_its_bounds(duration: float, good: bool) -> None:
    message = Duration()
    message.FromMilliseconds(round(duration * 1000))
    violations: list[Violation] = []
    assert seconds_of(message, "deadline", 1.0, 5.5, violations) == pytest.approx(duration)
    assert [violation.field for violation in violations] == ([] if good else ["deadline"])

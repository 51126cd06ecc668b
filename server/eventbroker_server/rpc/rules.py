"""The rules that requests share: what breaks one is added to `violations`, by the path of its field.

A rule that is a request's own is checked where the request is taken apart; those of events are in rpc/convert.py.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from eventbroker_server.domain.errors import InvalidArgument, Violation
from eventbroker_server.domain.names import NAME_RULE, PATTERN_RULE, is_name, is_type_pattern
from eventbroker_server.rpc.auth import PRINCIPAL
from eventbroker_server.rpc.convert import EPOCH

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from google.protobuf.duration_pb2 import Duration
    from google.protobuf.timestamp_pb2 import Timestamp

MAX_PATTERNS = 100
_FIRST_SECOND = -62_135_596_800  # 0001-01-01T00:00:00
_LAST_SECOND = 253_402_300_799  # 9999-12-31T23:59:59


def check_name(name: str, path: str, violations: list[Violation], *, optional: bool = False) -> None:
    """An `optional` one may be empty."""
    if optional and name and not is_name(name):
        violations.append(Violation(path, f"{NAME_RULE}, or be empty"))
    elif not optional and not is_name(name):
        violations.append(Violation(path, NAME_RULE))


def tenant_of(tenant_id: str, violations: list[Violation], *, optional: bool = False) -> str:
    """The tenant that a request means, which is the caller's own if it names none. An `optional` one is empty then, if
    the caller has none either."""
    tenant = tenant_id or PRINCIPAL.get().tenant or ""
    check_name(tenant, "tenant_id", violations, optional=optional)
    return tenant


def check_patterns(patterns: Sequence[str], path: str, violations: list[Violation]) -> None:
    """Those of event types. Beyond the most that there may be, none is looked at."""
    if len(patterns) > MAX_PATTERNS:
        violations.append(Violation(path, f"must be at most {MAX_PATTERNS}"))
    violations += [
        Violation(f"{path}[{number}]", PATTERN_RULE)
        for number, pattern in enumerate(patterns[:MAX_PATTERNS])
        if not is_type_pattern(pattern)
    ]


def seconds_of(duration: Duration, path: str, low: float, high: float, violations: list[Violation]) -> float:
    """A duration in seconds, within bounds."""
    seconds = duration.seconds + duration.nanos / 1e9
    if not low <= seconds <= high:
        violations.append(Violation(path, f"must be from {low:g} s to {high:g} s, not {seconds:g} s"))
    return seconds


def moment_of(stamp: Timestamp) -> datetime | None:
    """A moment, to the microsecond; None if it is not of the years 1 to 9999, or its nanos make a second."""
    if _FIRST_SECOND <= stamp.seconds <= _LAST_SECOND and 0 <= stamp.nanos < 1_000_000_000:
        return EPOCH + timedelta(0, stamp.seconds, stamp.nanos // 1000)
    return None


def raise_if_any(violations: list[Violation]) -> None:
    """Raises InvalidArgument."""
    if violations:
        raise InvalidArgument(violations)

"""What people say on the command line, as the contract wants it: times, durations, aggregates, places in the log."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from eventbroker_cli.exits import Failed

if TYPE_CHECKING:
    from collections.abc import Callable

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")

TIME_HELP = "a time (2026-01-02, 2026-01-02T03:04:05Z; without a zone local) or how long ago (90s, 5m, 2h, 1d)"


def seconds(text: str) -> float:
    """ "90s", "1h30m", "500ms", or a bare number of seconds. Raises Failed."""
    compact = text.replace(" ", "")
    parts = _PART.findall(compact)
    if parts and "".join(amount + unit for amount, unit in parts) == compact:
        return sum(float(amount) * _UNITS[unit] for amount, unit in parts)
    if re.fullmatch(r"\d+(\.\d+)?", compact):
        return float(compact)
    raise Failed(f"{text!r} is no duration, such as 90s, 1h30m or 500ms")


def span(text: str) -> Duration:
    """The same for the wire."""
    made = Duration()
    made.FromMicroseconds(round(seconds(text) * 1e6))
    return made


def time(text: str, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> Timestamp:
    """See TIME_HELP. Raises Failed."""
    made = Timestamp()
    if re.fullmatch(r"now", text):
        moment = now()
    elif _PART.match(text):
        moment = now() - timedelta(seconds=seconds(text))
    else:
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            raise Failed(f"{text!r} is neither {TIME_HELP}") from None
        moment = moment.astimezone(UTC)
    made.FromDatetime(moment)
    return made


def aggregate(text: str) -> tuple[str, str]:
    """The type and the id of "User/u1". Raises Failed."""
    kind, slash, name = text.partition("/")
    if not (kind and slash and name):
        raise Failed(f"{text!r} is no aggregate: its type, a slash and its id, such as User/u1")
    return kind, name

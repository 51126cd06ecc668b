"""Times, durations, sizes and foreign text as people read them; exact values are for json."""

from __future__ import annotations

import unicodedata
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from google.protobuf.duration_pb2 import Duration
    from google.protobuf.timestamp_pb2 import Timestamp

_UNITS = ((86_400, "d"), (3_600, "h"), (60, "m"), (1, "s"))
_SIZES = ("B", "KiB", "MiB", "GiB", "TiB")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def clean(text: str) -> str:
    """Text that does nothing to a terminal: control characters (a newline, too) are spelled out."""
    if text.isprintable():
        return text
    return "".join(
        each if unicodedata.category(each) not in ("Cc", "Cf", "Zl", "Zp") else each.encode("unicode_escape").decode()
        for each in text
    )


def moment(stamp: Timestamp) -> str:
    """Local time to the millisecond, such as "2026-01-02 03:04:05.678"; empty if unset."""
    if not stamp.ByteSize():
        return ""
    utc = _EPOCH + timedelta(seconds=stamp.seconds, microseconds=stamp.nanos // 1_000)
    try:
        return utc.astimezone().isoformat(" ", "milliseconds").partition("+")[0][:23]
    except (OverflowError, ValueError, OSError):  # the edge of the calendar
        return utc.isoformat(" ", "milliseconds")[:23]


def seconds_of(span: Duration) -> float:
    return span.seconds + span.nanos / 1e9


def duration(seconds: float) -> str:
    """Such as "340 µs", "12 ms", "3.4 s", "2m 5s", "3d 4h"."""
    if seconds < 0:
        return f"-{duration(-seconds)}"
    if seconds < 0.001:
        return f"{seconds * 1e6:.0f} µs" if seconds else "0 s"
    if seconds < 1:
        return f"{seconds * 1e3:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f}".removesuffix(".0") + " s"
    left, told = round(seconds), []
    for size, unit in _UNITS:
        if left >= size:
            told.append(f"{left // size}{unit}")
            left %= size
    return " ".join(told[:2])


def size(of_bytes: float) -> str:
    """Such as "512 B", "1.5 MiB"."""
    unit = 0
    while of_bytes >= 1024 and unit < len(_SIZES) - 1:
        of_bytes, unit = of_bytes / 1024, unit + 1
    return f"{of_bytes:.1f}".removesuffix(".0") + f" {_SIZES[unit]}"


def number(count: float) -> str:
    return f"{count:,.0f}"


def counted(count: float, thing: str) -> str:
    """1 event, 2,000 events."""
    return f"{number(count)} {thing}{'' if count == 1 else 's'}"


def are(count: float, *, dry_run: bool = False) -> str:
    """The verb for so many things, to which something happens or, in a dry run, would."""
    if dry_run:
        return "would be"
    return "is" if count == 1 else "are"


def enum(name: str, prefix: str) -> str:
    """A value of an enum without its prefix: "retry" of "DELIVERY_STATE_RETRY"."""
    return name.removeprefix(f"{prefix}_").lower().replace("_", " ")

"""Ids of events: UUIDs of version 7 (RFC 9562), which sort by the millisecond in which they were made."""

from __future__ import annotations

import os
import time


def new_id() -> str:
    """A UUIDv7 as text. Ids of one millisecond are in no order."""
    number = (time.time_ns() // 1_000_000) << 80 | int.from_bytes(os.urandom(10))
    number = number & ~(0xF << 76) | 0x7 << 76
    number = number & ~(0x3 << 62) | 0x2 << 62
    text = f"{number:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"

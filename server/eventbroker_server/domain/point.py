"""A place in the log, as a caller names it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime


class Edge(Enum):
    """An end of the log."""

    EARLIEST = "earliest"
    LATEST = "latest"


@dataclass(frozen=True, slots=True)
class AfterPosition:
    """Right after a position, in each shard."""

    position: int


@dataclass(frozen=True, slots=True)
class AtTime:
    """Before the first event that was recorded at or after a time."""

    time: datetime


LogPoint = Edge | AfterPosition | AtTime

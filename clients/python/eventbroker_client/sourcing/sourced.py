"""An aggregate as it was rebuilt."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

S = TypeVar("S")


@dataclass(frozen=True, slots=True)
class Sourced(Generic[S]):
    """The state of an aggregate after its events up to `version`; 0: it has none. `snapshot_version` is that of the
    latest snapshot that is known; 0: none."""

    id: str
    state: S
    version: int
    snapshot_version: int = 0

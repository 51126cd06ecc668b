"""What keeps snapshots of aggregates, beside the log whose events they sum up."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from datetime import datetime

    from eventbroker_server.domain.event import AggregateKey, Data
    from eventbroker_server.domain.snapshot import Rebuilt, Snapshot


class SnapshotStore(Protocol):
    """Snapshots: at most one of an aggregate and version, never ahead of its events."""

    async def save(self, aggregate: AggregateKey, version: int, data: Data) -> datetime:
        """Keep a snapshot in place of the one of that version, if there is one. Answers when.

        Raises SnapshotAhead, with nothing stored, if the aggregate has not come to that version."""

    async def find(self, aggregate: AggregateKey, most: int | None = None) -> Snapshot | None:
        """The latest snapshot, at version `most` or before."""

    async def page(self, aggregate: AggregateKey, before: int | None, count: int) -> list[Snapshot]:
        """The `count` latest snapshots, or the latest before a version, without their data; the latest first."""

    async def rebuild(
        self, aggregate: AggregateKey, as_of: int | datetime | None, most: int, *, with_snapshot: bool
    ) -> Rebuilt | None:
        """The aggregate as of a version, as of a time (with what was recorded then or before), or as it is: the latest
        snapshot of then, if wanted, and the first `most` events after it; fewer, but at least one, if the data is more
        than 4 MiB. All of it is of one moment. None if it had no event.

        Raises VersionBeyond for a version that it has not come to."""

"""What the rules need of the outbox: events that services published in transactions of their own, on their way to the
log."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from eventbroker_server.ports.stores import Decision

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from contextlib import AbstractAsyncContextManager

    from eventbroker_server.domain.event import Event
    from eventbroker_server.ports.stores import Appended, Row


class TakenFromOutbox(Decision, Protocol):
    """Rows of the outbox, by their numbers, in a transaction that holds the lock of their shard."""

    @property
    def numbers(self) -> list[int]: ...

    def events(self) -> list[Event]:
        """The events of the rows, in their order."""

    async def insert(self, rows: Sequence[Row]) -> Appended:
        """Append events to the log; a row without a base gets its aggregate's next version. Raises Collision when an
        event id is taken: then nothing of it was done, and something else can be."""

    async def forget(self, numbers: Sequence[int]) -> None:
        """Delete rows."""

    async def refuse(self, reasons: Mapping[int, str]) -> None:
        """Put rows aside, each with its reason."""


class Outbox(Protocol):
    """Rows that are committed, in each shard in the order of their numbers. Those of one transaction come in the order
    in which they were published."""

    async def shards(self) -> list[int]:
        """The shards with rows."""

    def taking(self, shard: int, most: int) -> AbstractAsyncContextManager[TakenFromOutbox]:
        """Take the first rows, `most` and a few MiB at most, for nobody else meanwhile. None if there are none, or
        another broker is taking. What was done with them is committed and flushed when the block ends without an
        exception, and undone otherwise."""

    async def refuse(self, shard: int, number: int, reason: str) -> None:
        """Put a row aside, if it is still there."""

    async def listen(self, published: Callable[[], None]) -> None:
        """Tell, for ever, when something may have been published: as well as can be, so look now and then, too."""


class SettledInSql(Protocol):
    """What consumers settled in transactions of their own."""

    async def purge(self) -> int:
        """Forget what tells nothing any more, in steps, and answer how many rows that were."""

"""What lists of events and aggregates need of PostgreSQL."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Collection
    from datetime import datetime

    from eventbroker_server.domain.event import AggregateKey, StoredEvent
    from eventbroker_server.domain.history import EventFilter


class Span(NamedTuple):
    """The places p, positions or versions, with after < p <= upto."""

    after: int
    upto: int


class HistoryPage(NamedTuple):
    """Events in the order of the list. Those of the span after the place `reached`, in that order, are not looked at
    yet; None if all were."""

    events: list[StoredEvent]
    reached: int | None


class AggregateHead(NamedTuple):
    """How far an aggregate has come: its latest event."""

    aggregate_type: str
    aggregate_id: str
    version: int
    position: int
    record_time: datetime


class Link(NamedTuple):
    """An event in a tree of causes, and about how many bytes it has. Without a cause that is empty."""

    position: int
    event_id: str
    caused_by: str
    size: int


class History(Protocol):
    """What is stored, as lists. A tenant's events are in one shard, and the caller knows which."""

    async def events(
        self, tenant: str, shard: int, asked: EventFilter, span: Span, count: int, *, newest_first: bool = False
    ) -> HistoryPage:
        """The first events that are asked for of a span of positions up to the head: `count` at most, and 4 MiB of data
        or one event. Looks at a hundred thousand events at most, so a page may have none and still not be the last."""

    async def aggregate_events(
        self, shard: int, aggregate: AggregateKey, span: Span, count: int, *, newest_first: bool = False
    ) -> HistoryPage:
        """The first events of a span of the versions of an aggregate, within the same bounds."""

    async def aggregates(
        self, tenant: str, aggregate_type: str, after: tuple[str, str] | None, count: int
    ) -> list[AggregateHead]:
        """The aggregates of a type (empty: of any) after a type and id, bytewise, so many at most."""

    async def links_near(self, tenant: str, links: Collection[Link], known: Collection[int], count: int) -> list[Link]:
        """The causes and the effects of these events, but for those at known positions: the oldest so many."""

    async def links_correlated(
        self, tenant: str, correlation_id: str, known: Collection[int], count: int
    ) -> list[Link]:
        """The events of a correlation id, which is not empty, but for those at known positions: the oldest so many."""

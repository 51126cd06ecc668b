"""Lists of events and aggregates in PostgreSQL: keeps the promises of ports.History.

A list goes through an index in the order of places, positions or versions: that of the aggregate, of the cause, of the
correlation, of the user or of the types. Where an index serves all that is asked, a page is as quick as it is short.
What no index serves (sources, tags, and what is asked beside) is looked at in steps of a bounded number of entries.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from eventbroker_server.ports import AggregateHead, HistoryPage, Link, Span
from eventbroker_server.postgres.event_log import stored_event
from eventbroker_server.postgres.queries import QUERIES
from eventbroker_server.postgres.ways import NOTHING_ELSE, of_aggregate, way_of

if TYPE_CHECKING:
    from collections.abc import Collection

    from eventbroker_server.domain.event import AggregateKey
    from eventbroker_server.domain.history import EventFilter
    from eventbroker_server.postgres.pool import Pool
    from eventbroker_server.postgres.ways import Way

_PAGE_BYTES = 4 << 20
_STEP = 10_000  # entries of an index looked at in one statement
_STEPS = 10  # in one call
_LAST_NAME = "~"  # after every name


class _List(NamedTuple):
    """Of a tenant's events along a way."""

    tenant: str
    shard: int
    way: Way
    newest_first: bool

    def upto(self, span: Span, place: int) -> Span:
        """What of a span is listed before a place and at it."""
        return Span(place - 1, span.upto) if self.newest_first else Span(span.after, place)

    def after(self, span: Span, place: int) -> Span:
        """What of a span is listed after a place."""
        return Span(span.after, place - 1) if self.newest_first else Span(place, span.upto)

    def near(self, span: Span, reach: int) -> Span:
        """The first `reach` places of a span."""
        if self.newest_first:
            return Span(max(span.after, span.upto - reach), span.upto)
        return Span(span.after, min(span.upto, span.after + reach))

    def last(self, span: Span) -> int:
        """The place of a span that is listed last."""
        return span.after + 1 if self.newest_first else span.upto


class PostgresHistory:
    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def events(
        self, tenant: str, shard: int, asked: EventFilter, span: Span, count: int, *, newest_first: bool = False
    ) -> HistoryPage:
        async with self._pool.connection() as connection:
            way = await way_of(connection, tenant, asked)
            if asked.aggregate_id:
                aggregate = (tenant, asked.aggregate_type, asked.aggregate_id)
                versions = [await connection.fetchval(QUERIES["version_at"], *aggregate, place) for place in span]
                span = Span(*versions)
        return await self._page(_List(tenant, shard, way, newest_first), span, count)

    async def aggregate_events(
        self, shard: int, aggregate: AggregateKey, span: Span, count: int, *, newest_first: bool = False
    ) -> HistoryPage:
        tenant, aggregate_type, aggregate_id = aggregate
        way = of_aggregate(aggregate_type, aggregate_id)
        page = await self._page(_List(tenant, shard, way, newest_first), span, count)
        return page._replace(reached=page.events[-1].aggregate_version) if page.reached is not None else page

    async def _page(self, listed: _List, span: Span, count: int) -> HistoryPage:
        """What it has reached is a position."""
        statement, rest = listed.way.page(newest_first=listed.newest_first)
        lanes = listed.way.columns()
        page: list[Any] = []
        reached = None
        reach = _STEP
        for _ in range(_STEPS):
            async with self._pool.connection() as connection:
                end = await self._step(connection, listed, span, reach)
                step = listed.upto(span, end[0]) if end else span
                most = count - len(page) + 1  # one more tells whether there is a next page
                limits = (most, listed.shard, _PAGE_BYTES)
                rows = await connection.fetch(statement, listed.tenant, *lanes, *step, *limits, *rest)
            page += rows
            if rows and (rows[0]["found"] > len(rows) or len(page) > count or _bytes(page) > _PAGE_BYTES):
                page = page[:count]
                reached = page[-1]["position"]
                break
            if end is None:
                reached = None
                break
            place, reached = end
            span = listed.after(span, place)
            reach = 8 * (step.upto - step.after)  # where entries are rare, steps grow
        return HistoryPage([stored_event(row) for row in page], reached)

    async def _step(self, connection: Any, listed: _List, span: Span, reach: int) -> tuple[int, int] | None:
        """The place where a step of so many entries ends, and its position; None if it ends with the span.

        A step along several lanes ends after `reach` places at the latest: else each would be read far beyond where the
        step ends."""
        way = listed.way
        if way.rest == NOTHING_ELSE:
            return None
        near = listed.near(span, reach) if len(way.lanes) > 1 else span
        statement = way.step(newest_first=listed.newest_first)
        end = await connection.fetchrow(statement, listed.tenant, *way.columns(), *near, _STEP)
        if end:
            return end["place"], end["position"]
        return None if near == span else (listed.last(near), listed.last(near))

    async def aggregates(
        self, tenant: str, aggregate_type: str, after: tuple[str, str] | None, count: int
    ) -> list[AggregateHead]:
        bounds = (*(after or (aggregate_type, "")), aggregate_type or _LAST_NAME)
        async with self._pool.connection() as connection:
            rows = await connection.fetch(QUERIES["aggregates"], tenant, *bounds, count)
        return [AggregateHead(*row) for row in rows]

    async def links_near(self, tenant: str, links: Collection[Link], known: Collection[int], count: int) -> list[Link]:
        ids = [link.event_id for link in links]
        causes = list({link.caused_by for link in links if link.caused_by})
        async with self._pool.connection() as connection:
            rows = await connection.fetch(QUERIES["links_near"], tenant, ids, causes, list(known), count)
        return [Link(*row) for row in rows]

    async def links_correlated(
        self, tenant: str, correlation_id: str, known: Collection[int], count: int
    ) -> list[Link]:
        async with self._pool.connection() as connection:
            rows = await connection.fetch(QUERIES["links_correlated"], tenant, correlation_id, list(known), count)
        return [Link(*row) for row in rows]


def _bytes(rows: list[Any]) -> int:
    return sum(len(row["content"]) for row in rows)

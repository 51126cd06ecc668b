"""Lists of events and aggregates in PostgreSQL: keeps the promises of ports.History.

A list goes through an index in the order of places, positions or versions: that of the aggregate, of the cause, of the
correlation, of the user or of the types. Where an index serves all that is asked, a page is as quick as it is short.
What no index serves (sources, tags, and what is asked beside) is looked at in steps of a bounded number of entries.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from eventbroker_server.domain.filter import TypeFilter
from eventbroker_server.domain.group import ALL_TENANTS
from eventbroker_server.domain.history import EventFilter
from eventbroker_server.ports import AggregateHead, HistoryPage, Link, Span
from eventbroker_server.postgres.event_log import stored_event
from eventbroker_server.postgres.filtering import Wanted, wanted
from eventbroker_server.postgres.queries import QUERIES

if TYPE_CHECKING:
    from collections.abc import Collection

    from eventbroker_server.domain.event import AggregateKey
    from eventbroker_server.postgres.pool import Pool

_PAGE_BYTES = 4 << 20
_STEP = 10_000  # entries of an index looked at in one statement
_STEPS = 10  # in one call
_PAGE_ARGUMENTS = 8  # of history_page, before those of what else is asked
_LAST_NAME = "~"  # after every name

# Each condition repeats the predicate of its index: a plan that is made for any value could not tell that it holds.
_BY_AGGREGATE = "aggregate_type = lane.kind AND aggregate_id = lane.key"
_BY_CAUSE = "metadata ->> 'caused_by' = lane.key AND metadata ->> 'caused_by' <> ''"
_BY_CORRELATION = "correlation_id = lane.key AND correlation_id <> ''"
_BY_USER = "user_id = lane.key AND user_id <> ''"
_BY_TYPE = "event_type = lane.key"
_NOTHING_ELSE = EventFilter()


class Way(NamedTuple):
    """Through an index: a condition on its entries, their place, and what else is asked of them. A lane is what the
    condition compares with."""

    condition: str
    place: str
    lanes: list[tuple[str, str]]
    rest: EventFilter

    def page(self, *, newest_first: bool) -> Wanted:
        """The statement history_page, and the last of its arguments."""
        rest = wanted(ALL_TENANTS, self.rest, _PAGE_ARGUMENTS)
        return Wanted(self._sql("history_page", newest_first, rest.sql), rest.args)

    def step(self, *, newest_first: bool) -> str:
        """The statement history_step."""
        return self._sql("history_step", newest_first)

    def _sql(self, name: str, newest_first: bool, rest: str = "") -> str:
        order = "DESC" if newest_first else "ASC"
        return QUERIES[name] % {"lane": self.condition, "place": self.place, "order": order, "rest": rest}

    def columns(self) -> tuple[list[str], list[str]]:
        return [kind for kind, _ in self.lanes], [key for _, key in self.lanes]


def _of_aggregate(aggregate_type: str, aggregate_id: str, rest: EventFilter) -> Way:
    return Way(_BY_AGGREGATE, "aggregate_version", [(aggregate_type, aggregate_id)], rest)


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
        return await self._page(tenant, shard, way, span, count, newest_first)

    async def aggregate_events(
        self, shard: int, aggregate: AggregateKey, span: Span, count: int, *, newest_first: bool = False
    ) -> HistoryPage:
        tenant, aggregate_type, aggregate_id = aggregate
        way = _of_aggregate(aggregate_type, aggregate_id, _NOTHING_ELSE)
        page = await self._page(tenant, shard, way, span, count, newest_first)
        return page._replace(reached=page.events[-1].aggregate_version) if page.reached is not None else page

    async def _page(self, tenant: str, shard: int, way: Way, span: Span, count: int, newest_first: bool) -> HistoryPage:
        """What it has reached is a position."""
        page_sql, rest = way.page(newest_first=newest_first)
        step_sql = way.step(newest_first=newest_first)
        page: list[Any] = []
        reached = None
        for _ in range(_STEPS):
            step, end = span, None
            async with self._pool.connection() as connection:
                if way.rest != _NOTHING_ELSE:
                    end = await connection.fetchrow(step_sql, tenant, *way.columns(), *span, _STEP)
                    if end:
                        step = Span(end["place"] - 1, span.upto) if newest_first else Span(span.after, end["place"])
                most = count - len(page) + 1  # one more tells whether there is a next page
                limits = (most, shard, _PAGE_BYTES)
                rows = await connection.fetch(page_sql, tenant, *way.columns(), *step, *limits, *rest)
            page += rows
            if rows and (rows[0]["found"] > len(rows) or len(page) > count or _bytes(page) > _PAGE_BYTES):
                page = page[:count]
                reached = page[-1]["position"]
                break
            if end is None:
                reached = None
                break
            reached = end["position"]
            span = Span(span.after, end["place"] - 1) if newest_first else Span(end["place"], span.upto)
        return HistoryPage([stored_event(row) for row in page], reached)

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


async def way_of(connection: Any, tenant: str, asked: EventFilter) -> Way:
    """By the index that leaves the least."""
    if asked.aggregate_id:
        rest = replace(asked, aggregate_type="", aggregate_id="")
        return _of_aggregate(asked.aggregate_type, asked.aggregate_id, rest)
    if asked.caused_by:
        return Way(_BY_CAUSE, "position", [("", asked.caused_by)], replace(asked, caused_by=""))
    if asked.correlation_id:
        return Way(_BY_CORRELATION, "position", [("", asked.correlation_id)], replace(asked, correlation_id=""))
    if asked.user_id:
        return Way(_BY_USER, "position", [("", asked.user_id)], replace(asked, user_id=""))
    types = asked.types.exact()
    if asked.types.prefixes():
        stored = [row[0] for row in await connection.fetch(QUERIES["types_of_tenant"], tenant)]
        types = [name for name in stored if asked.types.matches(name)]
    rest = replace(asked, types=TypeFilter.of())
    return Way(_BY_TYPE, "position", [("", name) for name in types], rest)


def _bytes(rows: list[Any]) -> int:
    return sum(len(row["content"]) for row in rows)

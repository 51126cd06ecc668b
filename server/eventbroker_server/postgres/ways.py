"""Ways through the indexes of the log, for lists of events."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

from eventbroker_server.domain.filter import TypeFilter
from eventbroker_server.domain.group import ALL_TENANTS
from eventbroker_server.domain.history import EventFilter
from eventbroker_server.postgres.filtering import Wanted, wanted
from eventbroker_server.postgres.queries import QUERIES

_PAGE_ARGUMENTS = 8  # of history_page, before those of what else is asked

# Each condition repeats the predicate of its index: a plan that is made for any value could not tell that it holds.
_OF_AGGREGATE = "aggregate_type = lane.kind AND aggregate_id = lane.key"
_CAUSED_BY = "metadata ->> 'caused_by' = lane.key AND metadata ->> 'caused_by' <> ''"
_CORRELATED = "correlation_id = lane.key AND correlation_id <> ''"
_OF_USER = "user_id = lane.key AND user_id <> ''"
_OF_TYPE = "event_type = lane.key"
NOTHING_ELSE = EventFilter()


class Way(NamedTuple):
    """A condition on the entries of an index, the column of their places, the lanes, each of which the condition is to
    compare with, and what else is asked of the events."""

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

    def columns(self) -> tuple[list[str], list[str]]:
        """The lanes, as arguments."""
        return [kind for kind, _ in self.lanes], [key for _, key in self.lanes]

    def _sql(self, name: str, newest_first: bool, rest: str = "") -> str:
        order = "DESC" if newest_first else "ASC"
        return QUERIES[name] % {"lane": self.condition, "place": self.place, "order": order, "rest": rest}


def of_aggregate(aggregate_type: str, aggregate_id: str, rest: EventFilter = NOTHING_ELSE) -> Way:
    """Its places are versions, where those of all others are positions."""
    return Way(_OF_AGGREGATE, "aggregate_version", [(aggregate_type, aggregate_id)], rest)


async def way_of(connection: Any, tenant: str, asked: EventFilter) -> Way:
    """By the index that leaves the least."""
    if asked.aggregate_id:
        rest = replace(asked, aggregate_type="", aggregate_id="")
        return of_aggregate(asked.aggregate_type, asked.aggregate_id, rest)
    if asked.caused_by:
        return Way(_CAUSED_BY, "position", [("", asked.caused_by)], replace(asked, caused_by=""))
    if asked.correlation_id:
        return Way(_CORRELATED, "position", [("", asked.correlation_id)], replace(asked, correlation_id=""))
    if asked.user_id:
        return Way(_OF_USER, "position", [("", asked.user_id)], replace(asked, user_id=""))
    types = asked.types.exact()
    if asked.types.prefixes():
        stored = [row[0] for row in await connection.fetch(QUERIES["types_of_tenant"], tenant)]
        types = [name for name in stored if asked.types.matches(name)]
    rest = replace(asked, types=TypeFilter.of())
    return Way(_OF_TYPE, "position", [("", name) for name in types], rest)

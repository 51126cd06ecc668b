"""`eventbroker tail`: the last events that were stored, and those that come."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import grpc
import typer
from eventbroker.v1 import event_store_service_pb2 as pb
from eventbroker_client import InvalidArgument
from eventbroker_client.connection.attempts import Backoff
from eventbroker_client.connection.failure import error_of

from eventbroker_cli import event_views, filters, given
from eventbroker_cli.command import command
from eventbroker_cli.exits import Failed
from eventbroker_cli.link import Link
from eventbroker_cli.output import Format, Output

if TYPE_CHECKING:
    from collections.abc import Sequence

    from eventbroker.v1.event_pb2 import Event
    from google.protobuf.timestamp_pb2 import Timestamp

_EXAMPLES = """
eventbroker tail -t acme
eventbroker tail 'order.*' --since 10m
eventbroker tail -t acme --after 1200 --no-follow -o ndjson
"""
_ALL = "*"
_MOST_SHARDS = 1_000


def add_to(app: typer.Typer) -> None:
    command(app, "tail", examples=_EXAMPLES, panel="Publish and consume")(tail)


async def tail(
    link: Link,
    out: Output,
    types: filters.Types = None,
    last: Annotated[int, typer.Option("--last", "-n", min=0, max=1000, help="How many of the past.")] = 10,
    since: Annotated[str, typer.Option(help=f"Instead: from this time on. {given.TIME_HELP}.")] = "",
    after: Annotated[int | None, typer.Option(min=0, help="Instead: after this position; 0 for all.")] = None,
    follow: Annotated[bool, typer.Option("--follow/--no-follow", help="Stay, and print what is stored.")] = True,
    count: Annotated[int, typer.Option("--count", min=0, help="End after so many events.")] = 0,
    aggregate: filters.Aggregate = "",
    correlation: filters.Correlation = "",
    caused_by: filters.CausedBy = "",
    user: filters.User = "",
    source: filters.Sources = None,
    tag: filters.Tags = None,
) -> None:
    """Print the last events that were stored, and then each as it is stored, until Ctrl-C.

    It reads the log, and takes nothing from any group. Without a tenant it shows the events of all tenants: then --last
    counts positions of each shard, whether they match or not. It reconnects by itself, and misses nothing.
    """
    asked = filters.filter_of(types, aggregate, correlation, caused_by, user, source, tag)
    if since and after is not None:
        raise Failed("give --since or --after, not both")
    begin = given.time(since) if since else None
    request = pb.ReadEventsRequest(tenant_id=link.tenant or _ALL, filter=asked, follow=follow)
    printer = Printer(out, tenant=not link.tenant, most=count)
    heads = await _heads(link) if not link.tenant else [await _head(link, link.tenant, 0)]
    try:
        async with asyncio.TaskGroup() as tasks:
            for shard, head in enumerate(heads):
                one = pb.ReadEventsRequest()
                one.CopyFrom(request)
                one.shard = shard
                if begin is not None:
                    one.recorded_from.CopyFrom(begin)
                else:
                    one.after_position = after if after is not None else await _before_last(link, asked, last, head)
                tasks.create_task(_read(link, out, one, printer))
    except* Enough:
        pass


class Enough(Exception):
    """As many events were printed as were asked for."""


@dataclass(slots=True)
class Printer:
    """Prints events of all shards."""

    out: Output
    tenant: bool
    most: int
    printed: int = 0

    def take(self, events: Sequence[Event]) -> None:
        """Raises Enough."""
        for event in events:
            if self.out.for_people:
                self.out.row(event_views.line(event, tenant=self.tenant))
            else:
                self.out.line(event, indent=2 if self.out.format is Format.json else None, flush=False)
            self.printed += 1
            if self.printed == self.most:
                self.out.flush()
                raise Enough
        self.out.flush()


async def _read(link: Link, out: Output, request: pb.ReadEventsRequest, printer: Printer) -> None:
    """A shard, over as many streams as it takes."""
    backoff = Backoff()
    while True:
        call: Any = link.events.ReadEvents(request, metadata=link.connection.metadata())
        pause = None
        try:
            async for response in call:
                printer.take(response.events.events)
                request.after_position = response.position
                backoff.reset()
                if response.HasField("closing"):
                    pause = response.closing.retry_after.ToTimedelta().total_seconds()
        except grpc.RpcError as failure:
            error = error_of(failure)
            if not (error.retryable and request.follow):
                raise error from None
            pause = backoff.next()
            out.say(f"the connection broke ({error.reason}); again in {pause:.1f} s")
        finally:
            call.cancel()
        if pause is None and not request.follow:
            return
        await asyncio.sleep(pause or 0.0)


async def _before_last(link: Link, asked: pb.EventFilter, last: int, head: int) -> int:
    """The position after which so many events come."""
    if not link.tenant:
        return max(0, head - last)
    found = head
    if last:
        request = pb.ListEventsRequest(
            tenant_id=link.tenant, filter=asked, order=pb.EVENT_ORDER_NEWEST_FIRST, upto_position=head
        )
        async for event in link.pages(link.events.ListEvents, request, "events", last):
            found = event.position - 1
    return found


async def _heads(link: Link) -> list[int]:
    """The newest position of each shard. The contract does not tell how many there are: one too far is refused."""
    heads: list[int] = []
    for shard in range(_MOST_SHARDS):
        try:
            heads.append(await _head(link, _ALL, shard))
        except InvalidArgument as error:
            if not heads or [each.field for each in error.violations] != ["shard"]:
                raise
            break
    return heads


async def _head(link: Link, tenant: str, shard: int) -> int:
    """What reading from a time to come answers."""
    request = pb.ReadEventsRequest(tenant_id=tenant, shard=shard)
    request.recorded_from.CopyFrom(_far_away())
    call: Any = link.events.ReadEvents(request, metadata=link.connection.metadata(), timeout=link.target.timeout)
    head = 0
    try:
        async for response in call:
            head = response.head_position
    except grpc.RpcError as failure:
        raise error_of(failure) from None
    return head


def _far_away() -> Timestamp:
    return given.time("9999-01-01T00:00:00Z")

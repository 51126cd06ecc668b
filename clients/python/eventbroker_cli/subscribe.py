"""`eventbroker subscribe`: the events of a group, or of an ephemeral one, as they are delivered."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import grpc
import typer
from eventbroker.v1 import group_service_pb2
from eventbroker.v1 import subscriber_service_pb2 as pb
from eventbroker_client import EventBrokerError, NotFound
from eventbroker_client.connection.attempts import Backoff
from eventbroker_client.connection.failure import error_of

from eventbroker_cli import event_views, given
from eventbroker_cli.command import command
from eventbroker_cli.completing import group_names
from eventbroker_cli.exits import Code, Failed
from eventbroker_cli.link import Link
from eventbroker_cli.output import Format, Output
from eventbroker_cli.readable import counted, number

if TYPE_CHECKING:
    from collections.abc import Sequence

_EXAMPLES = """
eventbroker subscribe 'user.*' -t acme
eventbroker subscribe --group mailer --ack -o ndjson | ./mailer
eventbroker subscribe --from earliest --exit-at-end -t acme -o ndjson > all.ndjson
eventbroker subscribe -g billing --count 3
"""

_HELD = 10_000  # deliveries that may be out: the most that a broker allows
_FLOW = pb.FlowControl(max_unsettled_events=2_000, max_batch_events=500)  # of one who settles at once
_STARTS = {"earliest": pb.START_POINT_EARLIEST, "latest": pb.START_POINT_LATEST}


class Start(StrEnum):
    """Where a new group begins."""

    earliest = "earliest"
    latest = "latest"


def add_to(app: typer.Typer) -> None:
    command(app, "subscribe", examples=_EXAMPLES, panel="Publish and consume")(subscribe)


async def subscribe(
    link: Link,
    out: Output,
    types: Annotated[list[str] | None, typer.Argument(metavar="TYPES...", help="Such as user.created, user.*.")] = None,
    group: Annotated[str, typer.Option("--group", "-g", help="The consumer group.", autocompletion=group_names)] = "",
    ack: Annotated[bool, typer.Option("--ack", help="Settle events of the group once they are printed.")] = False,
    start: Annotated[Start | None, typer.Option("--from", help="Where a group begins that this makes.")] = None,
    exit_at_end: Annotated[bool, typer.Option("--exit-at-end", "-e", help="End when nothing more waits.")] = False,
    count: Annotated[int, typer.Option("--count", "-n", min=0, help="End after so many events.")] = 0,
    consumer: Annotated[str, typer.Option(help="The name of this consumer.")] = "",
    ack_deadline: Annotated[str, typer.Option(help="Of a group that this makes: 30s, 5m.")] = "",
) -> None:
    """Print the events of a consumer group as they are delivered, until Ctrl-C.

    Without --group it is an ephemeral group of this command alone, which begins with the next event (--from latest);
    nothing else is affected. With --group this command takes events from the group's other consumers: with --ack they
    are settled once they are printed; without it they are held while the command runs, at most 10,000, and go back to
    the group when it ends. A group that does not exist is made.

    It reconnects by itself. -o ndjson prints a line for each delivery, with the event, the attempt and the ack id.
    """
    wish = pb.SubscribeRequest(group=group, consumer_id=consumer, event_types=types or (), tenant_id=link.tenant)
    if start is not None:
        wish.start = _STARTS[start.value]
    found = await _found(link, group) if group else None
    if found is not None and start is not None:
        out.say(f"group {group} exists: --from does nothing; `eventbroker groups seek` moves it")
    if found is not None and found.paused:
        told = f"group {group} is paused: nothing comes until `eventbroker groups resume`"
        if exit_at_end:
            raise Failed(told, Code.PARTLY)
        out.say(told)
    if ack_deadline:
        wish.ack_deadline.CopyFrom(given.span(ack_deadline))
    settles = ack or not group
    wish.flow_control.CopyFrom(_FLOW if settles else pb.FlowControl(max_unsettled_events=_HELD))
    if count:
        wish.flow_control.max_unsettled_events = min(count, wish.flow_control.max_unsettled_events)
    reader = Reader(link, out, wish, settles=settles, exit_at_end=exit_at_end, most=count)
    try:
        await reader.run()
    finally:
        if reader.late:
            out.say(f"acked too late, and coming again: {counted(reader.late, 'event')}")


async def _found(link: Link, name: str) -> group_service_pb2.Group | None:
    """The group, if it exists. Raises EventBrokerError."""
    request = group_service_pb2.GetGroupRequest(name=name, tenant_id=link.tenant)
    try:
        answer: group_service_pb2.GetGroupResponse = await link.ask(link.groups.GetGroup, request)
    except NotFound:
        return None
    return answer.group


@dataclass(slots=True)
class Reader:
    """A subscription over as many streams as it takes."""

    link: Link
    out: Output
    wish: pb.SubscribeRequest
    settles: bool
    exit_at_end: bool
    most: int  # events; 0: no end
    late: int = 0
    _printed: int = 0
    _opened: bool = False
    _held: list[str] = field(default_factory=list)
    _deadline: float = 30.0

    async def run(self) -> None:
        """Returns at the end that was asked for. Raises EventBrokerError and Failed."""
        backoff = Backoff()
        async with asyncio.TaskGroup() as tasks:
            keeping = tasks.create_task(self._keep())
            while True:
                try:
                    pause = await self._follow()
                except EventBrokerError as error:
                    if not (self._opened and error.retryable):
                        raise
                    pause = backoff.next()
                    self.out.say(f"the connection broke ({error.reason}); again in {pause:.1f} s")
                if pause is None:
                    keeping.cancel()
                    return
                self._held.clear()  # the stream's end gave them back
                await asyncio.sleep(pause)

    async def _follow(self) -> float | None:
        """One stream. Answers how many seconds to wait before the next, or None at the end."""
        call: Any = self.link.subscriber.Subscribe(self.wish, metadata=self.link.connection.metadata())
        try:
            async for response in call:
                kind = response.WhichOneof("response")
                if kind == "opened":
                    self._begin(response.opened)
                elif kind == "deliveries":
                    if await self._take(response.deliveries.deliveries):
                        return None
                elif kind == "caught_up":
                    if self.exit_at_end:
                        return None
                elif kind == "closing":
                    return _pause_after(response.closing)
        except grpc.RpcError as failure:
            raise error_of(failure) from None
        finally:
            call.cancel()
        return 1.0

    def _begin(self, opened: pb.Opened) -> None:
        self._deadline = opened.ack_deadline.ToTimedelta().total_seconds()
        if self.out.remarks.is_terminal and not self._opened:
            name = f"group {opened.group}" if self.wish.group else "an ephemeral group"
            of = opened.tenant_id or "all tenants"
            self.out.say(f"{name} of {of}: {', '.join(opened.event_types)}. Ctrl-C ends it")
        self._opened = True
        self.wish.consumer_id = opened.consumer_id  # the same one when it comes back

    async def _take(self, deliveries: Sequence[pb.Delivery]) -> bool:
        """Print, then settle or hold them. Answers whether that is the end."""
        if self.most:
            deliveries = deliveries[: self.most - self._printed]
        for delivery in deliveries:
            self._print(delivery)
        self.out.flush()  # before they are acked: whoever reads has them
        self._printed += len(deliveries)
        ack_ids = [delivery.ack_id for delivery in deliveries]
        if self.settles:
            answer = await self.link.connection.call(self.link.subscriber.Ack, pb.AckRequest(ack_ids=ack_ids))
            self.late += sum(result.outcome != pb.SETTLE_OUTCOME_DONE for result in answer.results)
        else:
            self._held += ack_ids
            if len(self._held) == _HELD and not self.most:
                told = f"{number(_HELD)} events are held, and no more may be: with --ack it would go on"
                if self.exit_at_end:
                    raise Failed(told, Code.PARTLY)
                self.out.say(told)
        return bool(self.most) and self._printed >= self.most

    def _print(self, delivery: pb.Delivery) -> None:
        if self.out.for_people:
            again = f"attempt {delivery.attempt}" if delivery.attempt > 1 else ""
            remark = ", ".join(filter(None, (again, "replay" if delivery.is_replay else "")))
            self.out.row(event_views.line(delivery.event, tenant=not self.link.tenant, remark=remark))
        else:
            self.out.line(delivery, indent=2 if self.out.format is Format.json else None, flush=False)

    async def _keep(self) -> None:
        """Extends the deadline of what is held."""
        while True:
            await asyncio.sleep(self._deadline / 3)
            if self._held:
                request = pb.ExtendDeadlineRequest(ack_ids=self._held)
                request.deadline.FromMicroseconds(round(self._deadline * 1e6))
                with suppress(EventBrokerError):  # tried again soon; the stream tells if the broker is gone
                    await self.link.ask(self.link.subscriber.ExtendDeadline, request)


def _pause_after(closing: pb.Closing) -> float | None:
    """Raises Failed if the stream must not come back."""
    if closing.reason == pb.CLOSING_REASON_REPLACED:
        raise Failed("another consumer of this name took over", Code.CONFLICT)
    if closing.reason == pb.CLOSING_REASON_GROUP_DELETED:
        raise Failed("the group was deleted", Code.CONFLICT)
    if closing.reason == pb.CLOSING_REASON_DRAINED:
        return None
    return float(closing.retry_after.ToTimedelta().total_seconds())

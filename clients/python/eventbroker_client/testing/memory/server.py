"""The services, on a port of 127.0.0.1, in the event loop of whoever starts them."""

from __future__ import annotations

import asyncio
import uuid
from typing import TYPE_CHECKING, Any

import grpc.aio
from eventbroker.v1 import dead_letter_service_pb2 as dead_pb
from eventbroker.v1 import group_service_pb2 as group_pb
from eventbroker.v1 import publisher_service_pb2 as publisher_pb
from eventbroker.v1 import subscriber_service_pb2 as pb
from eventbroker.v1.dead_letter_service_pb2_grpc import (
    DeadLetterServiceServicer,
    add_DeadLetterServiceServicer_to_server,
)
from eventbroker.v1.event_store_service_pb2_grpc import add_EventStoreServiceServicer_to_server
from eventbroker.v1.group_service_pb2_grpc import GroupServiceServicer, add_GroupServiceServicer_to_server
from eventbroker.v1.publisher_service_pb2_grpc import PublisherServiceServicer, add_PublisherServiceServicer_to_server
from eventbroker.v1.subscriber_service_pb2_grpc import (
    SubscriberServiceServicer,
    add_SubscriberServiceServicer_to_server,
)

from eventbroker_client.testing.memory.group import State
from eventbroker_client.testing.memory.groups import Groups
from eventbroker_client.testing.memory.log import Log
from eventbroker_client.testing.memory.refused import Refused, knows_only, refuse_if, refusing
from eventbroker_client.testing.memory.store import EventStore
from eventbroker_client.testing.memory.stream import Stream

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from eventbroker_client.testing.memory.group import Group, Item

OPTIONS = [
    ("grpc.max_receive_message_length", 64 * 1024 * 1024),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 5_000),
]


class MemoryServer:
    """`start`, then use `target`; `stop` in the same event loop."""

    def __init__(self) -> None:
        self.log = Log(lambda event: self.groups.offer(event))
        self.groups = Groups(self.log.events)
        self.target = ""

    async def start(self) -> None:
        self._server = server = grpc.aio.server(options=OPTIONS)
        # What these leave out answers UNIMPLEMENTED.
        add_PublisherServiceServicer_to_server(Publisher(self.log), server)
        add_SubscriberServiceServicer_to_server(Subscriber(self.groups), server)  # type: ignore[abstract]
        add_GroupServiceServicer_to_server(GroupAdministration(self.log, self.groups), server)  # type: ignore[abstract]
        add_DeadLetterServiceServicer_to_server(DeadLetters(self.groups), server)  # type: ignore[abstract]
        add_EventStoreServiceServicer_to_server(EventStore(self.log), server)  # type: ignore[abstract]
        self.target = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
        await server.start()

    async def stop(self) -> None:
        await self._server.stop(1.0)  # seconds for the calls of who just left to end, without complaints of gRPC
        self.groups.close()


class Publisher(PublisherServiceServicer):
    def __init__(self, log: Log) -> None:
        self._log = log

    @refusing
    async def Publish(self, request: publisher_pb.PublishRequest, context: Any) -> publisher_pb.PublishResponse:  # noqa: N802
        return self._log.publish(request)

    async def PublishStream(self, request_iterator: Any, context: Any) -> None:  # type: ignore[override] # noqa: N802
        async for request in request_iterator:
            answer = publisher_pb.PublishStreamResponse(correlation=request.correlation, window=1)
            try:
                answer.response.CopyFrom(self._log.publish(request.request))
            except Refused as refused:
                refused.tell(answer.error, within="request.")
            await context.write(answer)


class Subscriber(SubscriberServiceServicer):
    """Consume, and the unary calls that settle."""

    def __init__(self, groups: Groups) -> None:
        self._groups = groups

    async def Consume(self, request_iterator: Any, context: Any) -> None:  # type: ignore[override] # noqa: N802
        try:
            await self._consume(aiter(request_iterator), context)
        except Refused as refused:
            await context.abort_with_status(refused.status())

    async def _consume(self, requests: AsyncIterator[pb.ConsumeRequest], context: Any) -> None:
        first = await anext(requests, pb.ConsumeRequest())
        if not first.HasField("open"):
            refuse_if([("open", "is required first")])
        wish = first.open
        group = self._groups.subscribed(wish)
        flow = pb.FlowControl(max_unsettled_events=wish.flow_control.max_unsettled_events or 256)
        stream = Stream(wish.consumer_id or uuid.uuid4().hex, flow.max_unsettled_events)
        opened = pb.Opened(
            group=group.name,
            consumer_id=stream.consumer_id,
            event_types=sorted(group.types),
            tenant_id=group.tenant,
            flow_control=flow,
        )
        opened.ack_deadline.FromMilliseconds(round(group.ack_deadline * 1000))
        stream.say(pb.SubscribeResponse(opened=opened))
        group.join(stream)
        reading = asyncio.create_task(self._read(requests, stream), name="eventbroker in memory")
        try:
            async for said in stream.responses():
                await context.write(said)
        finally:
            reading.cancel()
            group.leave(stream)
            if not wish.group:
                self._groups.forget(group)

    async def _read(self, requests: AsyncIterator[pb.ConsumeRequest], stream: Stream) -> None:
        try:
            async for request in requests:
                settling = request.WhichOneof("request")
                if settling == "drain":
                    stream.drain()
                else:
                    results = self._settle(getattr(request, settling or ""))
                    stream.answer(pb.Outcomes(correlation=request.correlation, results=results))
            stream.drain()
        except Exception as failure:
            stream.fail(failure)

    def _settle(self, request: pb.AckRequest | pb.NackRequest | pb.ExtendDeadlineRequest) -> list[pb.SettleResult]:
        def one(group: Group, item: Item, ack_id: str) -> pb.SettleOutcome.ValueType:
            if isinstance(request, pb.AckRequest):
                return group.ack(item, ack_id)
            if isinstance(request, pb.NackRequest):
                return group.nack(item, request, ack_id)
            return group.extend(item, request.deadline.ToTimedelta().total_seconds(), ack_id)

        return self._groups.settle(request.ack_ids, one)

    async def Ack(self, request: pb.AckRequest, context: Any) -> pb.AckResponse:  # noqa: N802
        return pb.AckResponse(results=self._settle(request))

    async def Nack(self, request: pb.NackRequest, context: Any) -> pb.NackResponse:  # noqa: N802
        return pb.NackResponse(results=self._settle(request))

    async def ExtendDeadline(  # noqa: N802
        self, request: pb.ExtendDeadlineRequest, context: Any
    ) -> pb.ExtendDeadlineResponse:
        return pb.ExtendDeadlineResponse(results=self._settle(request))


class GroupAdministration(GroupServiceServicer):
    def __init__(self, log: Log, groups: Groups) -> None:
        self._log, self._groups = log, groups

    @refusing
    async def CreateGroup(self, request: group_pb.CreateGroupRequest, context: Any) -> group_pb.CreateGroupResponse:  # noqa: N802
        group = self._groups.create(request)
        told = group_pb.Group(name=group.name, tenant_id=group.tenant, event_types=sorted(group.types))
        return group_pb.CreateGroupResponse(group=told)

    @refusing
    async def WaitForGroup(self, request: group_pb.WaitForGroupRequest, context: Any) -> group_pb.WaitForGroupResponse:  # noqa: N802
        group = self._groups.get(request.name, request.tenant_id)
        position = request.position or len(self._log.events)
        try:
            async with asyncio.timeout(request.timeout.ToTimedelta().total_seconds()):
                while not group.done_upto(position):
                    await group.progress.wait()
        except TimeoutError:
            return group_pb.WaitForGroupResponse(reached=False)
        return group_pb.WaitForGroupResponse(reached=True, settled_position=position)


class DeadLetters(DeadLetterServiceServicer):
    def __init__(self, groups: Groups) -> None:
        self._groups = groups

    @refusing
    async def ListDeadLetters(  # noqa: N802
        self, request: dead_pb.ListDeadLettersRequest, context: Any
    ) -> dead_pb.ListDeadLettersResponse:
        knows_only(request, "group", "tenant_id")
        group = self._groups.get(request.group, request.tenant_id)
        dead = [item for item in group.items if item.state is State.DEAD]
        dead.sort(key=lambda item: (item.dead_at.ToNanoseconds(), item.event.position), reverse=True)
        return dead_pb.ListDeadLettersResponse(dead_letters=map(dead_letter_of, dead))

    @refusing
    async def RedriveDeadLetters(  # noqa: N802
        self, request: dead_pb.RedriveDeadLettersRequest, context: Any
    ) -> dead_pb.RedriveDeadLettersResponse:
        knows_only(request, "group", "tenant_id", "filter")
        knows_only(request.filter, "all", "event_ids")
        group = self._groups.get(request.group, request.tenant_id)
        dead = {item.event.event_id: item for item in group.items if item.state is State.DEAD}
        wanted = list(dead) if request.filter.all else list(request.filter.event_ids)
        if missing := [event_id for event_id in wanted if event_id not in dead]:
            raise Refused("DEAD_LETTER_NOT_FOUND", dead_letters=str(len(missing)))
        for event_id in wanted:
            group.redrive(dead[event_id])
        return dead_pb.RedriveDeadLettersResponse(redriven=len(wanted))


def dead_letter_of(item: Item) -> dead_pb.DeadLetter:
    event = item.event
    return dead_pb.DeadLetter(
        event_id=event.event_id,
        event_type=event.event_type,
        aggregate_type=event.aggregate_type,
        aggregate_id=event.aggregate_id,
        event_tenant_id=event.tenant_id,
        position=event.position,
        attempts=item.attempts,
        reason=item.reason,
        rejected=item.rejected,
        dead_at=item.dead_at,
    )

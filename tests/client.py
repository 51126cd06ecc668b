"""A thin client over the generated stubs, for tests."""

from __future__ import annotations

import asyncio
import uuid
from typing import TYPE_CHECKING, Any, Self

import grpc
from eventbroker.v1 import (
    event_pb2,
    event_store_service_pb2,
    group_service_pb2,
    publisher_service_pb2,
    subscriber_service_pb2,
)
from eventbroker.v1.dead_letter_service_pb2_grpc import DeadLetterServiceStub
from eventbroker.v1.event_store_service_pb2_grpc import EventStoreServiceStub
from eventbroker.v1.group_service_pb2_grpc import GroupServiceStub
from eventbroker.v1.publisher_service_pb2_grpc import PublisherServiceStub
from eventbroker.v1.stats_service_pb2_grpc import StatsServiceStub
from eventbroker.v1.subscriber_service_pb2_grpc import SubscriberServiceStub
from grpc_status import rpc_status

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

TIMEOUT = 15.0

DONE = subscriber_service_pb2.SETTLE_OUTCOME_DONE
ALREADY_SETTLED = subscriber_service_pb2.SETTLE_OUTCOME_ALREADY_SETTLED
OUTDATED = subscriber_service_pb2.SETTLE_OUTCOME_OUTDATED
UNKNOWN = subscriber_service_pb2.SETTLE_OUTCOME_UNKNOWN
STORED = publisher_service_pb2.PUBLISH_OUTCOME_STORED
DUPLICATE = publisher_service_pb2.PUBLISH_OUTCOME_DUPLICATE
REFUSED = publisher_service_pb2.PUBLISH_OUTCOME_REFUSED


def event(**fields: Any) -> event_pb2.Event:
    """A valid event; fields replace the defaults, and None leaves one out."""
    given: dict[str, Any] = {
        "event_id": str(uuid.uuid4()),
        "event_type": "user.created",
        "aggregate_id": f"u-{uuid.uuid4().hex[:8]}",
        "aggregate_type": "User",
        "tenant_id": "acme",
        "json": '{"email": "a@example.com"}',
    } | fields
    if any(name in fields for name in ("message", "binary")):
        del given["json"]
    message = event_pb2.Event(**{name: value for name, value in given.items() if value is not None})
    if "timestamp" not in fields:
        message.timestamp.FromJsonString("2026-01-02T03:04:05.678901Z")
    return message


class Client:
    """Stubs on one channel."""

    def __init__(self, target: str) -> None:
        self.target = target
        self.channel = grpc.aio.insecure_channel(target)  # with the limits that every client has
        self.publisher = PublisherServiceStub(self.channel)
        self.subscriber = SubscriberServiceStub(self.channel)
        self.event_store = EventStoreServiceStub(self.channel)
        self.dead_letters = DeadLetterServiceStub(self.channel)
        self.stats = StatsServiceStub(self.channel)
        self.groups = GroupServiceStub(self.channel)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.channel.close()

    async def publish(self, *events: event_pb2.Event, **fields: Any) -> list[publisher_service_pb2.PublishResult]:
        request = publisher_service_pb2.PublishRequest(events=events, **fields)
        return list((await self.publisher.Publish(request, timeout=TIMEOUT)).results)

    async def get_event(self, event_id: str, tenant_id: str = "acme") -> event_pb2.Event:
        request = event_store_service_pb2.GetEventRequest(tenant_id=tenant_id, event_id=event_id)
        return (await self.event_store.GetEvent(request, timeout=TIMEOUT)).event

    async def create_group(self, name: str, *event_types: str, **fields: Any) -> group_service_pb2.Group:
        request = group_service_pb2.CreateGroupRequest(name=name, event_types=event_types, **fields)
        return (await self.groups.CreateGroup(request, timeout=TIMEOUT)).group

    async def get_group(self, name: str, tenant_id: str = "") -> group_service_pb2.GetGroupResponse:
        request = group_service_pb2.GetGroupRequest(name=name, tenant_id=tenant_id)
        return await self.groups.GetGroup(request, timeout=TIMEOUT)

    async def ack(self, ack_ids: Iterable[str]) -> list[int]:
        request = subscriber_service_pb2.AckRequest(ack_ids=ack_ids)
        return [result.outcome for result in (await self.subscriber.Ack(request, timeout=TIMEOUT)).results]

    async def nack(
        self, ack_ids: Iterable[str], action: int = 0, *, reason: str = "", seconds: float | None = None
    ) -> list[int]:
        request = subscriber_service_pb2.NackRequest(ack_ids=ack_ids, action=action, reason=reason)  # type: ignore[arg-type]
        if seconds is not None:
            request.delay.FromMilliseconds(round(seconds * 1000))
        return [result.outcome for result in (await self.subscriber.Nack(request, timeout=TIMEOUT)).results]

    async def extend(self, ack_ids: Iterable[str], seconds: float) -> list[int]:
        request = subscriber_service_pb2.ExtendDeadlineRequest(ack_ids=ack_ids)
        request.deadline.FromMilliseconds(round(seconds * 1000))
        return [result.outcome for result in (await self.subscriber.ExtendDeadline(request, timeout=TIMEOUT)).results]

    async def subscribe(self, group: str = "", *event_types: str, **fields: Any) -> Stream:
        """Open a stream and read its first message. ack_deadline is in seconds."""
        request = subscriber_service_pb2.SubscribeRequest(group=group, event_types=event_types)
        if (seconds := fields.pop("ack_deadline", None)) is not None:
            request.ack_deadline.FromMilliseconds(round(seconds * 1000))
        request.MergeFrom(subscriber_service_pb2.SubscribeRequest(**fields))
        stream = Stream(self, self.subscriber.Subscribe(request))
        await stream.open()
        return stream


class Stream:
    """A Subscribe stream. Use as a context manager, or call `close`."""

    def __init__(self, client: Client, call: Any) -> None:
        self.client = client
        self.call = call
        self.opened = subscriber_service_pb2.Opened()
        self.caught_up = 0  # how often it was told
        self.heartbeats: list[subscriber_service_pb2.Heartbeat] = []
        self.closing: subscriber_service_pb2.Closing | None = None
        self._waiting: list[subscriber_service_pb2.Delivery] = []

    async def open(self) -> None:
        async with asyncio.timeout(TIMEOUT):
            first = await self.call.read()
        assert first.WhichOneof("response") == "opened", first
        self.opened = first.opened

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        self.call.cancel()

    async def read(self, timeout: float = TIMEOUT) -> subscriber_service_pb2.SubscribeResponse | None:
        """The next message; None at the end of the stream."""
        async with asyncio.timeout(timeout):
            read = await self.call.read()
        if read is grpc.aio.EOF:
            return None
        message: subscriber_service_pb2.SubscribeResponse = read
        if message.HasField("heartbeat"):
            self.heartbeats.append(message.heartbeat)
        if message.HasField("caught_up"):
            self.caught_up += 1
        if message.HasField("closing"):
            self.closing = message.closing
        return message

    async def take(self, count: int, timeout: float = TIMEOUT) -> list[subscriber_service_pb2.Delivery]:
        """The next `count` deliveries, not acked."""
        async with asyncio.timeout(timeout):
            while len(self._waiting) < count:
                message = await self.read(timeout)
                assert message is not None, f"the stream ended after {len(self._waiting)} of {count} deliveries"
                self._waiting += message.deliveries.deliveries
        taken, self._waiting = self._waiting[:count], self._waiting[count:]
        return taken

    async def take_and_ack(self, count: int, timeout: float = TIMEOUT) -> list[event_pb2.Event]:
        """The events of the next `count` deliveries, acked as they come."""
        events: list[event_pb2.Event] = []
        async with asyncio.timeout(timeout):
            while len(events) < count:
                some = await self.take(1, timeout)
                some += await self.take(min(len(self._waiting), count - len(events) - 1), timeout)
                await self.client.ack([delivery.ack_id for delivery in some])
                events += [delivery.event for delivery in some]
        return events

    async def nothing_but_heartbeats(self, count: int) -> None:
        """Read that many heartbeats, and no delivery among them."""
        before = len(self.heartbeats)
        while len(self.heartbeats) < before + count:
            message = await self.read()
            assert message is not None
            assert message.HasField("heartbeat") or message.HasField("caught_up"), message
        assert not self._waiting


def error_info(error: grpc.aio.AioRpcError) -> Any:
    """The details of an error: {"ErrorInfo": ..., "BadRequest": ...}."""
    from google.rpc import error_details_pb2

    status = rpc_status.from_call(error)
    found: dict[str, Any] = {}
    for packed in status.details if status else ():
        kind = getattr(error_details_pb2, packed.TypeName().rpartition(".")[2])
        detail = kind()
        packed.Unpack(detail)
        found[kind.DESCRIPTOR.name] = detail
    return found


def violations(error: grpc.aio.AioRpcError) -> dict[str, str]:
    """The fields that a BadRequest names, with their rules."""
    return {violation.field: violation.description for violation in error_info(error)["BadRequest"].field_violations}


def ack_ids(deliveries: Sequence[subscriber_service_pb2.Delivery]) -> list[str]:
    return [delivery.ack_id for delivery in deliveries]


def ids(of: Iterable[event_pb2.Event | subscriber_service_pb2.Delivery]) -> list[str]:
    return [each.event_id if isinstance(each, event_pb2.Event) else each.event.event_id for each in of]


async def publish(client: Client, count: int = 1, **fields: Any) -> list[str]:
    """Publish that many events; their ids."""
    events = [event(**fields) for _ in range(count)]
    await client.publish(*events)
    return ids(events)

"""Publishing over one connection: single events in shared calls, and events that stand or fall together."""

from __future__ import annotations

from typing import TYPE_CHECKING

from eventbroker.v1 import publisher_service_pb2 as pb
from eventbroker.v1.publisher_service_pb2_grpc import PublisherServiceStub

from eventbroker_client.events.wire import message_of
from eventbroker_client.publishing.batcher import Batcher
from eventbroker_client.publishing.published import Published, published_of, stored_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from eventbroker.v1.event_pb2 import Event as Message

    from eventbroker_client.connection.connection import Connection
    from eventbroker_client.errors import EventBrokerError
    from eventbroker_client.events.event import Event
    from eventbroker_client.events.wire import Defaults
    from eventbroker_client.publishing.published import Expect


class EventsPublisher:
    """`publish` and `publish_many`; see Broker, which offers them."""

    def __init__(self, connection: Connection, defaults: Defaults, *, room_events: int, room_bytes: int) -> None:
        self._connection = connection
        self._defaults = defaults
        self._publish = PublisherServiceStub(connection.channel).Publish
        self._batcher = Batcher(self._send, room_events=room_events, room_bytes=room_bytes)

    async def publish(self, event: Event, timeout: float | None) -> Published:
        timeout = self._connection.timeout if timeout is None else timeout
        return await self._batcher.publish(message_of(event, self._defaults), timeout)

    async def publish_many(
        self, events: Iterable[Event], expect: Iterable[Expect], timeout: float | None
    ) -> list[Published]:
        request = pb.PublishRequest(
            events=[message_of(event, self._defaults) for event in events],
            mode=pb.PUBLISH_MODE_ALL_OR_NONE,
            expectations=[expected.message() for expected in expect],
        )
        response = await self._connection.call(self._publish, request, timeout)
        return [stored_of(result) for result in response.results]

    async def close(self, timeout: float) -> None:
        await self._batcher.close(timeout)

    async def _send(self, messages: Sequence[Message], timeout: float) -> list[Published | EventBrokerError]:
        request = pb.PublishRequest(events=messages, mode=pb.PUBLISH_MODE_PER_EVENT)
        response = await self._connection.call_once(self._publish, request, timeout)
        return [published_of(result) for result in response.results]

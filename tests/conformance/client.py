"""The SDK, for the runner: events as a case says them go in, and what the SDK raises comes out as a Refusal.

What the SDK does not offer goes by its connection: groups, dead letters, made-up ack ids, and events that its own
classes cannot be, such as one without data.
"""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

from eventbroker.v1 import publisher_service_pb2 as publisher_pb
from eventbroker.v1 import subscriber_service_pb2 as pb
from eventbroker.v1.dead_letter_service_pb2_grpc import DeadLetterServiceStub
from eventbroker.v1.group_service_pb2_grpc import GroupServiceStub
from eventbroker.v1.publisher_service_pb2_grpc import PublisherServiceStub
from eventbroker.v1.subscriber_service_pb2_grpc import SubscriberServiceStub
from eventbroker_client import EventBrokerError, EventIdReused, Expect, InvalidArgument, Published, connect
from eventbroker_client.connection.address import address_of
from eventbroker_client.connection.connection import Connection

from tests.conformance.sdk_event import fill_in_as_the_sdk, is_of_the_sdk, sdk_event_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from eventbroker_client import Consumer, Delivery, Event, Outcome, Subscription

ENDS = {"CONSUMER_REPLACED": "REPLACED", "GROUP_DELETED": "GROUP_DELETED"}
CODES = {  # the SDK tells the reason and not the code, which follows from it
    "INVALID_ARGUMENT": "INVALID_ARGUMENT",
    "EVENT_ID_REUSED": "ALREADY_EXISTS",
    "GROUP_EXISTS": "ALREADY_EXISTS",
    "VERSION_CONFLICT": "ABORTED",
    "GROUP_MISMATCH": "FAILED_PRECONDITION",
    "DEAD_LETTER_NOT_FOUND": "NOT_FOUND",
}
FIELDS = {"seconds": "deadline"}  # as extend() calls it, and the contract


@dataclass
class Refusal(Exception):
    """The broker's no."""

    code: str
    reason: str
    retryable: bool
    fields: list[str] = field(default_factory=list)
    metadata: dict[str, str] = field(default_factory=dict)
    conflicts: list[str] = field(default_factory=list)


class Ended(Exception):
    """A subscription is over for good: "REPLACED", "GROUP_DELETED"."""


@contextmanager
def told() -> Iterator[None]:
    """What the SDK raises, as Refusal or Ended."""
    try:
        yield
    except EventBrokerError as error:
        if error.reason in ENDS:
            raise Ended(ENDS[error.reason]) from error
        raise Refusal(
            code=CODES.get(error.reason, error.reason),
            reason=error.reason,
            retryable=error.retryable,
            fields=[FIELDS.get(each.field, each.field) for each in getattr(error, "violations", ())],
            metadata=dict(error.metadata),
            conflicts=[each.aggregate for each in getattr(error, "conflicts", ())],
        ) from error


class Client:
    def __init__(self, target: str) -> None:
        self._connection = Connection(address_of(target))
        self._sdk = connect(target)
        channel = self._connection.channel
        self._publisher, self._subscriber = PublisherServiceStub(channel), SubscriberServiceStub(channel)
        self._services = {
            "GroupService": GroupServiceStub(channel),
            "DeadLetterService": DeadLetterServiceStub(channel),
        }

    async def __aenter__(self) -> Self:
        await self._sdk.__aenter__()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._sdk.__aexit__(None, None, None)
        await self._connection.close()

    async def publish(self, request: publisher_pb.PublishRequest) -> list[publisher_pb.PublishResult]:
        """The events of the request become as the SDK sends them."""
        with told():
            if not all(map(is_of_the_sdk, request.events)):
                return list((await self._connection.call(self._publisher.Publish, request)).results)
            events = [sdk_event_of(message) for message in request.events]
            for message in request.events:
                fill_in_as_the_sdk(message)
            if request.mode == publisher_pb.PUBLISH_MODE_PER_EVENT:
                return await asyncio.gather(*[self._each(number, event) for number, event in enumerate(events)])
            if len(events) == 1 and not request.expectations:
                return [result_of(await self._sdk.publish(events[0]))]
            expect = [
                Expect(
                    said.aggregate_type,
                    said.aggregate_id,
                    **{said.WhichOneof("expected"): getattr(said, said.WhichOneof("expected"))},  # type: ignore[arg-type]
                )
                for said in request.expectations
            ]
            return [result_of(each) for each in await self._sdk.publish_many(events, expect=expect)]

    async def _each(self, number: int, event: Event) -> publisher_pb.PublishResult:
        """One of several that stand alone. The SDK names the field of the event, the case that of the call."""
        try:
            return result_of(await self._sdk.publish(event))
        except (EventIdReused, InvalidArgument) as error:
            result = publisher_pb.PublishResult(event_id=event.id, outcome=publisher_pb.PUBLISH_OUTCOME_REFUSED)
            result.error.reason = error.reason
            for violation in getattr(error, "violations", ()):
                result.error.violations.add(field=f"events[{number}].{violation.field}")
            return result

    async def subscribe(self, request: pb.SubscribeRequest) -> Subscription:
        """Returns when the broker has opened the stream."""
        subscription = self._sdk.subscribe(**wished(request), max_unsettled=request.flow_control.max_unsettled_events)
        with told():
            await subscription.opened()
        return subscription

    async def next(self, subscription: Subscription) -> Delivery:
        """Raises StopAsyncIteration at an orderly end."""
        with told():
            return await anext(subscription)

    def consumer(self, request: pb.SubscribeRequest, concurrency: int) -> Consumer:
        return self._sdk.consumer(**wished(request), concurrency=concurrency)

    async def settle(self, deliveries: list[Delivery], settle: Callable[[Delivery], Awaitable[Outcome]]) -> list[int]:
        """All at once, so that they travel together."""
        with told():
            return [int(outcome) for outcome in await asyncio.gather(*map(settle, deliveries))]

    async def ack_ids(self, ack_ids: list[str]) -> list[int]:
        """Ids as they are, which the SDK has no delivery for."""
        response = await self._connection.call(self._subscriber.Ack, pb.AckRequest(ack_ids=ack_ids))
        return [result.outcome for result in response.results]

    async def administer(self, service: str, method: str, request: Any) -> Any:
        """A call of GroupService or DeadLetterService."""
        with told():
            return await self._connection.call(getattr(self._services[service], method), request)


def wished(request: pb.SubscribeRequest) -> dict[str, Any]:
    deadline = request.ack_deadline.ToTimedelta().total_seconds() if request.HasField("ack_deadline") else None
    return {
        "group": request.group,
        "types": list(request.event_types),
        "tenant": request.tenant_id,
        "consumer_id": request.consumer_id,
        "ack_deadline": deadline,
    }


def result_of(published: Published) -> publisher_pb.PublishResult:
    outcome = publisher_pb.PUBLISH_OUTCOME_DUPLICATE if published.duplicate else publisher_pb.PUBLISH_OUTCOME_STORED
    return publisher_pb.PublishResult(
        event_id=published.event_id,
        outcome=outcome,
        position=published.position,
        aggregate_version=published.aggregate_version,
    )

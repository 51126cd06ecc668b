"""Handlers: what becomes of their events, side by side and in order, through failures and restarts."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from eventbroker.v1 import dead_letter_service_pb2, group_service_pb2
from eventbroker.v1.subscriber_service_pb2 import NACK_ACTION_RELEASE as RELEASE
from eventbroker_client import (
    Broker,
    Delivery,
    DomainEvent,
    Event,
    EventNotFound,
    Proceed,
    Reject,
    Retry,
    UserCreated,
    connect,
    event_type,
    tracing,
)

from tests.sdk.settled import settled
from tests.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.client import Client


@event_type("cart.filled", aggregate_type="Cart")
@dataclass
class CartFilled:
    items: list[str]


def noted(number: int = 1, aggregate: str = "", **fields: Any) -> Event:
    return Event("order.noted", "Order", aggregate or f"o{number}", {"number": number}, **fields)


async def exists(sdk: Broker, event_id: str, tenant: str | None = None) -> Event | None:
    try:
        return await sdk.get_event(event_id, tenant=tenant)
    except EventNotFound:
        return None


async def explained(broker: Client, event_id: str, tenant: str) -> str:
    """What ExplainDelivery says of the last error."""
    request = group_service_pb2.ExplainDeliveryRequest(
        name="g", tenant_id=tenant, event_tenant_id=tenant, event_id=event_id
    )
    return str(await broker.groups.ExplainDelivery(request))


async def dead_letters(broker: Client, tenant: str) -> list[tuple[str, str]]:
    request = dead_letter_service_pb2.ListDeadLettersRequest(group="g", tenant_id=tenant)
    return [(dead.event_id, dead.reason) for dead in (await broker.dead_letters.ListDeadLetters(request)).dead_letters]


async def test_each_event_goes_to_the_handler_that_names_it_best(sdk: Broker) -> None:
    consumer = sdk.consumer("g")
    got: list[tuple[str, str]] = []

    @consumer.on("user.created")
    async def created(event: Event) -> None:
        got.append(("created", event.type))

    @consumer.on("user.*")
    async def user(event: Event) -> None:
        got.append(("user", event.type))

    @consumer.on("*")
    async def anything(event: Event, delivery: Delivery) -> None:
        assert delivery.attempt == 1
        got.append(("anything", event.type))

    async with consumer:
        await sdk.publish_many([Event(kind, "A", kind) for kind in ("user.created", "user.gone", "role.made")])
        await eventually(lambda: len(got) == 3)
    assert sorted(got) == [("anything", "role.made"), ("created", "user.created"), ("user", "user.gone")]


async def test_a_handler_of_a_class_gets_its_data_also_from_json(sdk: Broker) -> None:
    consumer = sdk.consumer("g")
    got: list[object] = []

    @consumer.on(UserCreated, CartFilled)
    async def handle(event: DomainEvent[Any]) -> None:
        got.append(event.data)

    async with consumer:
        await sdk.publish(DomainEvent("u1", UserCreated(email="a")))
        await sdk.publish(Event("user.created", "User", "u1", {"email": "b", "new": 1}))
        await sdk.publish(Event("cart.filled", "Cart", "u1", {"items": ["x"], "new": 1}))
        await eventually(lambda: len(got) == 3)
    got.sort(key=repr)  # those of two aggregates come in either order
    assert got == [CartFilled(["x"]), UserCreated(email="a"), UserCreated(email="b")]


async def test_what_a_handler_returns_from_is_settled(sdk: Broker, broker: Client, tenant: str) -> None:
    consumer = sdk.consumer("g")
    consumer.on("*")(handled := Handled())
    async with consumer:
        await sdk.publish_many([noted(number) for number in range(200)])
        await settled(broker, "g", tenant)
    assert handled.counts == dict.fromkeys(range(200), 1)


class Handled:
    """A handler that counts."""

    def __init__(self) -> None:
        self.counts: Counter[int] = Counter()

    async def __call__(self, event: Event) -> None:
        self.counts[event.data["number"]] += 1


async def test_handlers_run_side_by_side_up_to_the_concurrency(sdk: Broker) -> None:
    consumer = sdk.consumer("g", concurrency=4)
    running, most = 0, 0
    go = asyncio.Event()

    @consumer.on("*")
    async def handle(event: Event) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await go.wait()
        running -= 1

    async with consumer:
        await sdk.publish_many([noted(number) for number in range(20)])
        await eventually(lambda: running == 4)
        go.set()
    assert most == 4


async def test_the_events_of_an_aggregate_are_handled_one_after_the_other(
    sdk: Broker, broker: Client, tenant: str
) -> None:
    consumer = sdk.consumer("g", concurrency=8)
    got: dict[str, list[int]] = defaultdict(list)
    running: Counter[str] = Counter()

    @consumer.on("*")
    async def handle(event: Event) -> None:
        running[event.aggregate_id] += 1
        assert running[event.aggregate_id] == 1
        for _ in range(event.data["number"] % 3):
            await asyncio.sleep(0)
        got[event.aggregate_id].append(event.data["number"])
        running[event.aggregate_id] -= 1

    async with consumer:
        await sdk.publish_many([noted(number, f"o{number % 5}") for number in range(200)])
        await settled(broker, "g", tenant)
    assert got == {f"o{rest}": list(range(rest, 200, 5)) for rest in range(5)}


async def test_a_handler_that_raises_is_tried_again_and_the_reason_is_kept(
    sdk: Broker, broker: Client, tenant: str
) -> None:
    consumer = sdk.consumer("g")
    attempts: list[int] = []

    @consumer.on("*")
    async def handle(event: Event, delivery: Delivery) -> None:
        attempts.append(delivery.attempt)
        if delivery.attempt == 1:
            raise Retry("later", delay=0)
        if delivery.attempt == 2:
            raise RuntimeError("mail server\nis down")
        raise Reject("no such address")

    event = noted()
    async with consumer:
        await sdk.publish(event)
        await eventually(lambda: attempts == [1, 2, 3])
        await eventually(lambda: dead_letters(broker, tenant))
    assert await dead_letters(broker, tenant) == [(event.id, "no such address")]
    request = dead_letter_service_pb2.GetDeadLetterRequest(group="g", tenant_id=tenant, event_id=event.id)
    history = (await broker.dead_letters.GetDeadLetter(request)).history
    assert [attempt.error for attempt in history[:2]] == ["later", "RuntimeError: mail server is down"]


async def test_an_event_that_does_not_fit_or_that_nobody_handles_is_not_lost(
    sdk: Broker, broker: Client, tenant: str
) -> None:
    consumer = sdk.consumer("g", ["*"])

    @consumer.on(CartFilled)
    async def handle(event: DomainEvent[CartFilled]) -> None: ...

    async with consumer:
        published = [Event("cart.filled", "Cart", "c1", {}), noted()]
        await sdk.publish_many(published)

        async def told() -> bool:
            reasons = [await explained(broker, event.id, tenant) for event in published]
            return "lacks items" in reasons[0] and "no handler for order.noted" in reasons[1]

        await eventually(told)


async def test_a_handler_may_take_longer_than_the_deadline(sdk: Broker, broker: Client, tenant: str) -> None:
    consumer = sdk.consumer("g", ack_deadline=2, concurrency=1)
    attempts: list[int] = []

    @consumer.on("*")
    async def handle(event: Event, delivery: Delivery) -> None:
        await asyncio.sleep(3)  # there is no condition to wait for: nothing is to happen
        attempts.append(delivery.attempt)

    async with consumer:
        await sdk.publish_many([noted(1), noted(2)])  # the second waits for its turn
        await settled(broker, "g", tenant)
    assert attempts == [1, 1]


async def test_an_event_that_is_handed_out_again_while_it_is_handled_is_handled_once(
    sdk: Broker, broker: Client, tenant: str
) -> None:
    consumer = sdk.consumer("g")
    handled: list[int] = []

    @consumer.on("*")
    async def handle(event: Event, delivery: Delivery) -> None:
        handled.append(delivery.attempt)
        first = delivery.ack_id
        await broker.nack([first], RELEASE)
        await eventually(lambda: delivery.ack_id != first)

    async with consumer:
        await sdk.publish(noted())
        await settled(broker, "g", tenant)
    assert handled == [1]


async def test_what_is_handled_too_late_is_told_as_lost_and_acked_unseen_when_it_comes_again(
    sdk: Broker, broker: Client, tenant: str
) -> None:
    lost: list[str] = []
    consumer = sdk.consumer("g", on_lost=lambda delivery: lost.append(delivery.event_id))
    handled: list[int] = []

    @consumer.on("*")
    async def handle(event: Event, delivery: Delivery) -> None:
        handled.append(delivery.attempt)
        await broker.groups.PauseGroup(group_service_pb2.PauseGroupRequest(name="g", tenant_id=tenant))
        await broker.nack([delivery.ack_id], RELEASE)

    async with consumer:
        event = noted()
        await sdk.publish(event)
        await eventually(lambda: lost == [event.id])
        await broker.groups.ResumeGroup(group_service_pb2.ResumeGroupRequest(name="g", tenant_id=tenant))
        await settled(broker, "g", tenant)
    assert handled == [1]


async def test_a_batch_is_handled_and_settled_at_once(sdk: Broker, broker: Client, tenant: str) -> None:
    consumer = sdk.consumer("g")
    batches: list[list[int]] = []

    @consumer.on_batch("order.*", max_events=40, max_wait=0.2)
    async def handle(events: list[Event]) -> None:
        batches.append([event.data["number"] for event in events])

    async with consumer:
        await sdk.publish_many([noted(number) for number in range(100)])
        await settled(broker, "g", tenant)
    assert [number for batch in batches for number in batch] == list(range(100))
    assert max(len(batch) for batch in batches) <= 40
    assert len(batches) < 20


async def test_a_batch_that_fails_comes_again_but_for_what_its_handler_settled(
    sdk: Broker, broker: Client, tenant: str
) -> None:
    consumer = sdk.consumer("g")
    batches: list[list[tuple[int, int]]] = []

    @consumer.on_batch("*", max_events=3, max_wait=10)
    async def handle(events: list[Event], deliveries: list[Delivery]) -> None:
        batches.append([(event.data["number"], each.attempt) for event, each in zip(events, deliveries, strict=True)])
        if len(batches) == 1:
            await deliveries[0].ack()
            raise Retry(delay=0)

    async with consumer:
        await sdk.publish_many([noted(number) for number in range(3)])
        await eventually(lambda: batches)
        await sdk.publish(noted(3))
        await settled(broker, "g", tenant)
    first, second = batches
    assert first == [(0, 1), (1, 1), (2, 1)]
    assert sorted(second) == [(1, 2), (2, 2), (3, 1)]


async def test_middleware_wraps_handlers_from_the_first_to_the_last(sdk: Broker) -> None:
    consumer = sdk.consumer("g")
    said: list[str] = []

    @consumer.use
    async def outer(deliveries: Sequence[Delivery], proceed: Proceed) -> None:
        said.append(f"outer {len(deliveries)}")
        await proceed()
        said.append("outer ends")

    @consumer.use
    async def inner(deliveries: Sequence[Delivery], proceed: Proceed) -> None:
        said.append("inner")
        await proceed()

    @consumer.on("*")
    async def handle(event: Event) -> None:
        said.append("handler")

    async with consumer:
        await sdk.publish(noted())
        await eventually(lambda: len(said) == 4)
    assert said == ["outer 1", "inner", "handler", "outer ends"]


async def test_events_that_a_handler_publishes_are_of_its_events_chain(sdk: Broker) -> None:
    consumer = sdk.consumer("g", ["user.created"])
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

    @consumer.on("user.created")
    async def welcome(event: Event) -> None:
        await sdk.publish(Event("mail.sent", "Mail", event.id, id=f"welcome-{event.id}"))

    with tracing(traceparent=parent):
        root = await sdk.publish(Event("user.created", "User", "u1"))
    other = await sdk.publish(Event("user.created", "User", "u2", correlation_id="c2"))
    async with consumer:
        for published, correlation, attributes in (
            (root, root.event_id, {"traceparent": parent}),
            (other, "c2", {}),
        ):
            sent = await eventually(lambda: exists(sdk, f"welcome-{published.event_id}"))  # noqa: B023
            assert sent is not None
            assert (sent.correlation_id, sent.caused_by) == (correlation, published.event_id)
            assert sent.attributes == attributes
    assert (await sdk.get_event(root.event_id)).correlation_id == root.event_id
    outside = await sdk.publish(noted())
    assert (await sdk.get_event(outside.event_id)).caused_by == ""


async def test_a_consumer_of_all_tenants_publishes_for_that_of_its_event(broker: Client, tenant: str) -> None:
    async with connect(broker.target) as platform:
        consumer = platform.consumer("g", ["user.created"])

        @consumer.on("user.created")
        async def handle(event: Event) -> None:
            await platform.publish(Event("mail.sent", "Mail", "m1", id="m1"))

        async with consumer:
            await platform.publish(Event("user.created", "User", "u1", tenant_id=tenant))
            await eventually(lambda: exists(platform, "m1", tenant))

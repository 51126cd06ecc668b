"""A conformance case under way, in a tenant of its own: a method for each verb that a step can be."""

from __future__ import annotations

import asyncio
import uuid
from collections import Counter
from typing import TYPE_CHECKING, Any

from eventbroker.v1 import dead_letter_service_pb2 as dead_pb
from eventbroker.v1 import group_service_pb2 as group_pb
from eventbroker.v1 import publisher_service_pb2 as publisher_pb
from eventbroker.v1 import subscriber_service_pb2 as pb

from tests.conformance.client import Ended, Refusal
from tests.conformance.event import check_as_published, event_of
from tests.conformance.sdk_event import check_as_read
from tests.conformance.worker import Worker
from tests.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from eventbroker.v1.event_pb2 import Event
    from eventbroker_client import Delivery, Outcome, Subscription

    from tests.conformance.client import Client

WAIT = 15.0  # seconds


def numbered(name: str) -> tuple[str, int]:
    """ "e1#2" is the second of e1, "e1" the last: 0."""
    event_id, _, ordinal = name.partition("#")
    return event_id, int(ordinal or 0)


def outcomes_of(found: list[int]) -> list[str]:
    return [pb.SettleOutcome.Name(outcome).removeprefix("SETTLE_OUTCOME_") for outcome in found]  # type: ignore[arg-type]


class Play:
    def __init__(self, client: Client, control: str) -> None:
        self._client = client
        self._control = control
        self._tenant = f"t-{uuid.uuid4()}"
        self._published: dict[str, Event] = {}
        self._results: dict[str, list[tuple[int, int]]] = {}
        self._position = 0
        self._deliveries: dict[str, list[Delivery]] = {}
        self._subscriptions: dict[str, Subscription] = {}
        self._workers: dict[str, Worker] = {}

    async def close(self) -> None:
        for subscription in self._subscriptions.values():
            await subscription.aclose()
        for worker in self._workers.values():
            worker.task.cancel()

    async def step(self, verb: str, arguments: dict[str, Any]) -> None:
        """Raise AssertionError if it does not go as the case says. What may be an error is checked here."""
        expected = arguments.pop("error", None) if verb != "expect_end" else None
        renamed = {name + "_" * (name in ("from", "as")): value for name, value in arguments.items()}
        try:
            await getattr(self, verb)(**renamed)
        except Refusal as refused:
            if expected is None:
                raise
            found = vars(refused) | {"fields": sorted(refused.fields)}
            found["metadata"] = {name: found["metadata"][name] for name in expected.get("metadata", {})}
            wanted: dict[str, Any] = {"fields": [], "metadata": {}, "conflicts": []} | expected
            assert found == wanted | {"fields": sorted(wanted["fields"])}
        else:
            assert expected is None, f"no error, where {expected} was to come"

    async def publish(
        self,
        events: list[dict[str, Any]],
        mode: str = "UNSPECIFIED",
        expectations: list[dict[str, Any]] | None = None,
        outcomes: list[str] | None = None,
        versions: list[str] | None = None,
        as_: str = "",
        same_as: str = "",
        refused: dict[str, dict[str, Any]] | None = None,
    ) -> None:
        sent = [event_of(event, self._tenant) for event in events]
        request = publisher_pb.PublishRequest(events=sent, mode=publisher_pb.PublishMode.Value(f"PUBLISH_MODE_{mode}"))
        for said in expectations or []:
            request.expectations.add(**said | ({"version": int(said["version"])} if "version" in said else {}))
        results = await self._client.publish(request)
        sent = list(request.events)
        found = [publisher_pb.PublishOutcome.Name(result.outcome)[len("PUBLISH_OUTCOME_") :] for result in results]
        assert found == (outcomes or ["STORED"] * len(sent))
        for event, result in zip(sent, results, strict=True):
            if result.outcome == publisher_pb.PUBLISH_OUTCOME_REFUSED:
                fields = [violation.field for violation in result.error.violations]
                assert {"reason": result.error.reason, "fields": fields} == (refused or {})[event.event_id]
            else:
                self._published.setdefault(event.event_id, event)
                self._position = max(self._position, result.position)
        assert versions in (None, [str(result.aggregate_version) for result in results])
        self._results[as_] = [(result.position, result.aggregate_version) for result in results]
        assert not same_as or self._results[as_] == self._results[same_as]

    async def create_group(
        self,
        group: str,
        event_types: list[str] | None = None,
        ack_deadline: float = 0,
        initial_backoff: float = 0,
        maximum_backoff: float = 0,
        max_attempts: int = 0,
    ) -> None:
        request = group_pb.CreateGroupRequest(name=group, tenant_id=self._tenant, event_types=event_types or [])
        request.retry_policy.max_attempts = max_attempts
        for duration, seconds in (
            (request.ack_deadline, ack_deadline),
            (request.retry_policy.initial_backoff, initial_backoff),
            (request.retry_policy.maximum_backoff, maximum_backoff),
        ):
            if seconds:
                duration.FromMilliseconds(round(seconds * 1000))
        await self._client.administer("GroupService", "CreateGroup", request)

    def _wish(
        self,
        group: str,
        event_types: list[str] | None = None,
        ack_deadline: float = 0,
        consumer_id: str = "",
        max_unsettled: int = 0,
    ) -> pb.SubscribeRequest:
        request = pb.SubscribeRequest(
            group=group, tenant_id=self._tenant, event_types=event_types or [], consumer_id=consumer_id
        )
        request.flow_control.max_unsettled_events = max_unsettled
        if ack_deadline:
            request.ack_deadline.FromMilliseconds(round(ack_deadline * 1000))
        return request

    async def subscribe(self, as_: str, **wish: Any) -> None:
        async with asyncio.timeout(WAIT):
            self._subscriptions[as_] = await self._client.subscribe(self._wish(**wish))

    async def _next(self, names: list[str], seconds: float) -> tuple[str, Delivery] | None:
        """The next delivery to any of the subscriptions; None when none came in time."""
        waiting = {asyncio.create_task(self._client.next(self._subscriptions[name])): name for name in names}
        try:
            done, _ = await asyncio.wait(waiting, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            if not done:
                return None
            first, *others = done
            assert not others, "to tell them apart one must come after the other"
            return waiting[first], first.result()
        finally:
            for task in waiting:
                task.cancel()

    async def take(
        self,
        from_: str | list[str],
        events: list[str],
        attempt: int | None = None,
        counts: dict[str, int] | None = None,
        like: dict[str, dict[str, str]] | None = None,
    ) -> None:
        missing, shares = set(events), Counter[str]()
        names = [from_] if isinstance(from_, str) else from_
        async with asyncio.timeout(WAIT):
            while missing:
                taken = await self._next(names[:1] if counts else names, WAIT)
                assert taken is not None, f"without {missing}"
                name, delivery = taken
                event_id = delivery.event_id
                assert event_id in missing, f"{event_id!r} came, which was not to come"
                missing.remove(event_id)
                shares[name] += 1
                if counts and shares[name] == counts[name]:
                    names = names[1:]
                self._deliveries.setdefault(event_id, []).append(delivery)
                assert attempt in (None, delivery.attempt)
                check_as_published(delivery.message, self._published[event_id])
                check_as_read(delivery.event, delivery.message)
                for field, value in (like or {}).get(event_id, {}).items():
                    assert getattr(delivery.message, field) == value

    async def expect_none_within(self, from_: str, seconds: float) -> None:
        came = await self._next([from_], seconds)
        assert came is None, f"{came} came"

    def _named(self, deliveries: list[str]) -> list[Delivery]:
        return [self._deliveries[event_id][at - 1] for event_id, at in map(numbered, deliveries)]

    async def ack(
        self, deliveries: list[str] | None = None, ack_ids: list[str] | None = None, outcomes: list[str] | None = None
    ) -> None:
        if ack_ids:
            found = await self._client.ack_ids(ack_ids)
        else:
            found = await self._client.settle(self._named(deliveries or []), lambda delivery: delivery.ack())
        assert outcomes_of(found) == (outcomes or ["DONE"] * len(found))

    async def nack(
        self,
        deliveries: list[str],
        action: str = "UNSPECIFIED",
        reason: str = "",
        delay: float | None = None,
        outcomes: list[str] | None = None,
    ) -> None:
        async def settle(delivery: Delivery) -> Outcome:
            if action == "RELEASE":
                return await delivery.release()
            return await delivery.nack(delay=delay, reason=reason, dead_letter=action == "DEAD_LETTER")

        found = await self._client.settle(self._named(deliveries), settle)
        assert outcomes_of(found) == (outcomes or ["DONE"] * len(deliveries))

    async def extend(self, deliveries: list[str], seconds: float, outcomes: list[str] | None = None) -> None:
        found = await self._client.settle(self._named(deliveries), lambda delivery: delivery.extend(seconds))
        assert outcomes_of(found) == (outcomes or ["DONE"] * len(deliveries))

    async def run(self, as_: str, on: dict[str, list[Any]] | None = None, concurrency: int = 16, **wish: Any) -> None:
        self._workers[as_] = Worker(self._client.consumer(self._wish(**wish), concurrency), on or {})

    async def expect_handled(self, by: str, events: list[str], state: str = "done", times: int | None = None) -> None:
        worker = self._workers[by]
        for event_id, at in map(numbered, events):
            await eventually(lambda: worker.count(state, event_id) >= max(at, 1), WAIT)  # noqa: B023 (awaited here)
            assert times in (None, worker.count("begun", event_id))

    async def finish(self, by: str, events: list[str]) -> None:
        for event_id in events:
            self._workers[by].finished[event_id].set()

    async def stop(self, who: str, how: str) -> None:
        if how == "drain":
            self._workers[who].drain.set()
        else:
            await self._subscriptions[who].aclose()

    async def expect_end(self, who: str, error: str = "") -> None:
        over: Awaitable[Any]
        over = self._workers[who].task if who in self._workers else self._client.next(self._subscriptions[who])
        ending = ""
        try:
            async with asyncio.timeout(WAIT):
                await over
        except Ended as ended:
            (ending,) = ended.args
        assert ending == error

    async def dead_letters(
        self,
        group: str,
        events: list[str],
        reasons: dict[str, str] | None = None,
        attempts: dict[str, int] | None = None,
        rejected: dict[str, bool] | None = None,
    ) -> None:
        request = dead_pb.ListDeadLettersRequest(group=group, tenant_id=self._tenant)

        async def as_expected() -> bool:
            answer = await self._client.administer("DeadLetterService", "ListDeadLetters", request)
            found = {dead.event_id: dead for dead in answer.dead_letters}
            return (
                sorted(found) == sorted(events)
                and reasons in (None, {event_id: dead.reason for event_id, dead in found.items()})
                and attempts in (None, {event_id: dead.attempts for event_id, dead in found.items()})
                and rejected in (None, {event_id: dead.rejected for event_id, dead in found.items()})
            )

        await eventually(as_expected, WAIT)

    async def redrive(
        self, group: str, events: list[str] | None = None, all: bool = False, redriven: str = "", remaining: str = ""
    ) -> None:
        request = dead_pb.RedriveDeadLettersRequest(group=group, tenant_id=self._tenant)
        request.filter.all = all
        request.filter.event_ids.extend(events or [])
        answer = await self._client.administer("DeadLetterService", "RedriveDeadLetters", request)
        assert (str(answer.redriven), str(answer.remaining)) == (redriven, remaining)

    async def settled(self, group: str) -> None:
        request = group_pb.WaitForGroupRequest(name=group, tenant_id=self._tenant, position=self._position)
        request.timeout.FromSeconds(3)

        async def reached() -> bool:
            answer: group_pb.WaitForGroupResponse
            answer = await self._client.administer("GroupService", "WaitForGroup", request)
            return answer.reached

        await eventually(reached, WAIT)

    async def control(self, say: str, event: str = "", delivery: str = "") -> None:
        mark = event or (self._named([delivery])[0].ack_id if delivery else "")
        reader, writer = await asyncio.open_connection("127.0.0.1", int(self._control))
        writer.write(f"{say} {mark}\n".encode())
        assert await reader.readline() == b"ok\n"
        writer.close()

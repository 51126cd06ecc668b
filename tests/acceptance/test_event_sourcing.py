"""Appending for event sourcing: expected versions of several aggregates, written or only looked at, in one call."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from eventbroker.v1.event_store_service_pb2 import GetAggregateRequest
from eventbroker.v1.publisher_service_pb2 import AggregateExpectation

from tests.acceptance.refused import refusal, refused
from tests.client import TIMEOUT, event

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from eventbroker.v1.event_pb2 import Event
    from eventbroker.v1.publisher_service_pb2 import PublishResult

    from tests.client import Client

ROUNDS = 15


def on(aggregate: str, **fields: Any) -> Event:
    return event(aggregate_id=aggregate, **fields)


def at(aggregate: str, version: int) -> AggregateExpectation:
    return AggregateExpectation(aggregate_type="User", aggregate_id=aggregate, version=version)


async def conflicts(call: Awaitable[object]) -> dict[str, str]:
    """What a conflict says, by aggregate."""
    refused_ = await refused(call, grpc.StatusCode.ABORTED, "VERSION_CONFLICT")
    found = refused_.details["PreconditionFailure"].violations
    assert refused_.details["ErrorInfo"].metadata["conflicts"] == str(len(found))
    return {violation.subject.removeprefix("User/"): violation.description for violation in found}


async def attempt(call: Awaitable[list[PublishResult]]) -> list[PublishResult] | None:
    """The results; None after a conflict."""
    (answer,) = await asyncio.gather(call, return_exceptions=True)
    if isinstance(answer, grpc.aio.AioRpcError) and answer.code() == grpc.StatusCode.ABORTED:
        return None
    assert not isinstance(answer, BaseException), answer
    return answer


def versions(results: list[PublishResult]) -> list[int]:
    return [result.aggregate_version for result in results]


@pytest.fixture
async def three(broker: Client) -> Client:
    """A broker with the aggregates a, b and c at the versions 1, 2 and 3."""
    await broker.publish(*map(on, "abbccc"))
    return broker


@pytest.fixture
async def two_brokers(make_broker: Callable[..., Awaitable[Client]]) -> list[Client]:
    return [await make_broker(), await make_broker()]


# One call.


async def test_several_aggregates_are_written_at_their_expected_versions(three: Client) -> None:
    expectations = [at("a", 1), at("b", 2), at("new", 0)]
    results = await three.publish(*map(on, ("a", "b", "new", "a")), expectations=expectations)
    assert [(one.aggregate_version, one.position) for one in results] == [(2, 7), (3, 8), (1, 9), (3, 10)]


@pytest.mark.parametrize("wrong", [0, 1, 2])
async def test_if_one_of_several_is_not_as_expected_none_is_written(three: Client, wrong: int) -> None:
    expected = [1, 2, 3]
    expected[wrong] += 1
    expectations = [at(aggregate, version) for aggregate, version in zip("abc", expected, strict=True)]
    found = await conflicts(three.publish(*map(on, "abc"), expectations=expectations))
    assert found == {"abc"[wrong]: f"expected {wrong + 2}, actual {wrong + 1}"}
    results = await three.publish(*map(on, "abc"))
    assert (versions(results), results[0].position) == ([2, 3, 4], 7)


async def test_aggregates_that_are_not_written_must_be_as_expected(three: Client) -> None:
    held = [at("b", 2), at("c", 3), at("nobody", 0)]
    assert versions(await three.publish(on("a"), expectations=held)) == [2]
    assert await conflicts(three.publish(on("a"), expectations=[at("b", 1)])) == {"b": "expected 1, actual 2"}
    assert await conflicts(three.publish(on("a"), expectations=[at("nobody", 1)])) == {"nobody": "expected 1, actual 0"}
    assert versions(await three.publish(on("a"), on("b"))) == [3, 3]  # neither was written


async def test_all_conflicts_are_told_at_once_those_of_written_aggregates_and_of_others(three: Client) -> None:
    none_yet = AggregateExpectation(aggregate_type="User", aggregate_id="c", exists=False)
    expectations = [at("a", 0), at("b", 2), none_yet, at("d", 4), at("e", 0)]
    found = await conflicts(three.publish(on("a"), on("d"), on("f"), expectations=expectations))
    assert found == {"a": "expected 0, actual 1", "c": "expected none, actual 3", "d": "expected 4, actual 0"}


async def test_40_conflicts_are_all_told(broker: Client) -> None:
    expectations = [at(f"u{number:02}", number) for number in range(1, 41)]
    found = await conflicts(broker.publish(on("a"), expectations=expectations))
    assert found == {f"u{number:02}": f"expected {number}, actual 0" for number in range(1, 41)}


async def test_of_more_conflicts_than_trailers_hold_the_first_are_told_and_how_many_there_are(broker: Client) -> None:
    expectations = [at(f"u{number:03}", 1) for number in range(500)]
    refused_ = await refusal(broker.publish(on("a"), expectations=expectations))
    told = [violation.subject for violation in refused_.details["PreconditionFailure"].violations]
    assert told == [f"User/u{number:03}" for number in range(len(told))]
    assert 40 <= len(told) < 500
    assert refused_.details["ErrorInfo"].metadata["conflicts"] == "500"


async def test_an_expectation_is_of_the_callers_aggregates_not_of_another_tenants(broker: Client) -> None:
    await broker.publish(on("a", tenant_id="other"), on("a", tenant_id="other", aggregate_type="Session"))
    assert versions(await broker.publish(on("b"), expectations=[at("a", 0)])) == [1]


async def test_a_call_is_atomic_in_an_installation_of_several_shards(
    make_broker: Callable[..., Awaitable[Client]],
) -> None:
    broker = await make_broker(shards=3)
    for tenant in ("acme", "globex", "initech", "umbrella"):
        events = [on(aggregate, tenant_id=tenant) for aggregate in "ab"]
        assert versions(await broker.publish(*events, expectations=[at("a", 0), at("b", 0), at("c", 0)])) == [1, 1]
        again = [on(aggregate, tenant_id=tenant) for aggregate in "ab"]
        found = await conflicts(broker.publish(*again, expectations=[at("a", 1), at("b", 0), at("c", 1)]))
        assert found == {"b": "expected 0, actual 1", "c": "expected 1, actual 0"}


# Calls at once.


@pytest.mark.parametrize("warm", [True, False], ids=["versions remembered", "versions not remembered"])
async def test_of_two_that_write_what_the_other_only_looks_at_exactly_one_is_stored(
    two_brokers: list[Client], warm: bool
) -> None:
    """Each would hold alone; both would hold in neither order."""
    one, two = two_brokers
    for number in range(ROUNDS):
        left, right = f"left-{number}", f"right-{number}"
        if warm:
            await asyncio.gather(one.publish(on(left)), two.publish(on(right)))
        answers = await asyncio.gather(
            attempt(one.publish(on(left), expectations=[at(right, int(warm))])),
            attempt(two.publish(on(right), expectations=[at(left, int(warm))])),
        )
        (stored,) = [answer for answer in answers if answer]
        assert versions(stored) == [1 + warm]


async def test_what_was_only_looked_at_was_so_when_the_call_was_stored(two_brokers: list[Client]) -> None:
    """Whoever expects version n of an aggregate stands, in the log, after its event n and before its event n + 1."""

    async def look(number: int, seen: int) -> tuple[int, int] | None:
        call = two_brokers[number % 2].publish(on(f"looker-{number}"), expectations=[at("watched", seen)])
        answer = await attempt(call)
        return (answer[0].position, seen) if answer else None

    async def write(number: int) -> int:
        return (await two_brokers[number % 2].publish(on("watched")))[0].position

    looks: list[tuple[int, int] | None] = []
    writes: list[int] = []
    for start in range(ROUNDS):
        found = await asyncio.gather(
            *(look(10 * start + number, 2 * start + number % 3) for number in range(6)), write(0), write(1)
        )
        looks += [one for one in found if not isinstance(one, int)]
        writes += sorted(one for one in found if isinstance(one, int))
    stored = [one for one in looks if one]
    assert stored
    for position, seen in stored:
        assert sum(written < position for written in writes) == seen
    positions = sorted([position for position, _ in stored] + writes)
    assert positions == list(range(1, len(positions) + 1))  # what was refused took no place


async def test_of_many_that_write_two_aggregates_as_of_one_version_exactly_one_is_stored(
    two_brokers: list[Client],
) -> None:
    for version in range(5):
        expectations = [at("from", version), at("to", version)]
        calls = [broker.publish(on("from"), on("to"), expectations=expectations) for broker in two_brokers * 6]
        (stored,) = [answer for answer in await asyncio.gather(*map(attempt, calls)) if answer]
        assert versions(stored) == [version + 1] * 2


async def test_who_lost_reads_the_aggregate_and_tries_again(two_brokers: list[Client]) -> None:
    """The loop of event sourcing: rebuild, decide, append as of what was rebuilt."""
    await two_brokers[0].publish(on("counter"))
    request = GetAggregateRequest(tenant_id="acme", aggregate_type="User", aggregate_id="counter")

    async def count_up(client: Client) -> int:
        while True:
            seen = (await client.event_store.GetAggregate(request, timeout=TIMEOUT)).aggregate.version
            if answer := await attempt(client.publish(on("counter"), expectations=[at("counter", seen)])):
                return answer[0].aggregate_version

    counted = await asyncio.gather(*(count_up(two_brokers[number % 2]) for number in range(10)))
    assert sorted(counted) == list(range(2, 12))

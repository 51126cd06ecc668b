"""Aggregates through the SDK: rebuilt, as of then, snapshots, and the repository of event sourcing."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from eventbroker_client import (
    AggregateNotFound,
    Binary,
    Broker,
    DomainEvent,
    Event,
    PayloadMismatch,
    Repository,
    SnapshotAhead,
    SnapshotNotFound,
    UserCreated,
    VersionBeyond,
    VersionConflict,
    connect,
    event_type,
)

if TYPE_CHECKING:
    from tests.client import Client
    from tests.sdk.restarts import Restarts


@event_type("account.paid_in", aggregate_type="Account")
@dataclass(frozen=True)
class PaidIn:
    amount: int


@dataclass(frozen=True)
class Account:
    balance: int = 0
    credits: int = 0


def apply(account: Account, event: Event) -> Account:
    if isinstance(event.data, PaidIn):
        return Account(account.balance + event.data.amount, account.credits + 1)
    return account


def credit(amount: int, account: str = "a", **fields: Any) -> Event:
    return DomainEvent(account, PaidIn(amount), **fields)


@pytest.fixture
def accounts(sdk: Broker) -> Repository[Account]:
    return Repository(sdk, "Account", Account(), apply)


async def test_an_aggregate_is_its_latest_snapshot_and_the_events_after_it(sdk: Broker, tenant: str) -> None:
    await sdk.publish_many([credit(number) for number in range(1, 6)])
    saved = await sdk.save_snapshot("Account", "a", 3, {"balance": 6})
    account = await sdk.aggregate("Account", "a")
    assert (account.version, account.snapshot) == (5, saved)
    assert [event.data for event in account.events] == [PaidIn(4), PaidIn(5)]
    assert (account.position, account.record_time) == (5, account.events[-1].record_time)
    whole = await sdk.aggregate("Account", "a", snapshot=False)
    assert (whole.snapshot, len(whole.events)) == (None, 5)
    assert await sdk.aggregate("Account", "a", tenant=tenant) == account


async def test_an_aggregate_of_more_events_than_an_answer_holds_is_whole(sdk: Broker) -> None:
    for first in range(0, 2_300, 1_000):
        await sdk.publish_many([credit(number) for number in range(first, min(first + 1_000, 2_300))])
    account = await sdk.aggregate("Account", "a")
    assert [event.aggregate_version for event in account.events] == list(range(1, 2_301))
    then = await sdk.aggregate("Account", "a", version=1_500)
    assert (then.version, len(then.events)) == (1_500, 1_500)


async def test_an_aggregate_is_as_it_was_then(sdk: Broker) -> None:
    await sdk.publish(credit(1))
    at = (await sdk.aggregate("Account", "a")).record_time
    await sdk.publish(credit(2))
    assert (await sdk.aggregate("Account", "a", version=1)).version == 1
    assert (await sdk.aggregate("Account", "a", as_of=at)).version == 1
    with pytest.raises(AggregateNotFound):
        await sdk.aggregate("Account", "a", as_of=datetime(2020, 1, 1, tzinfo=UTC))
    with pytest.raises(AggregateNotFound):
        await sdk.aggregate("Account", "nobody")
    with pytest.raises(VersionBeyond) as caught:
        await sdk.aggregate("Account", "a", version=3)
    assert "2" in caught.value.metadata.values()
    with pytest.raises(ValueError, match="either"):
        await sdk.aggregate("Account", "a", version=1, as_of=at)


@pytest.mark.parametrize("data", [{"a": [1]}, None, b"bytes", Binary(b"1", "application/avro"), UserCreated(email="a")])
async def test_a_snapshot_comes_back_as_it_was(sdk: Broker, data: object) -> None:
    await sdk.publish_many([credit(1), credit(2)])
    first = await sdk.save_snapshot("Account", "a", 1, data)
    await sdk.save_snapshot("Account", "a", 2, "later")
    assert await sdk.get_snapshot("Account", "a", max_version=1) == first
    assert (await sdk.get_snapshot("Account", "a")).data == "later"
    listed = [(each.version, each.data) async for each in sdk.list_snapshots("Account", "a", page_size=1)]
    assert listed == [(2, None), (1, None)]


async def test_a_snapshot_that_cannot_be_is_refused(sdk: Broker) -> None:
    await sdk.publish(credit(1))
    with pytest.raises(SnapshotAhead):
        await sdk.save_snapshot("Account", "a", 2, {})
    with pytest.raises(SnapshotNotFound):
        await sdk.get_snapshot("Account", "a")


# The repository.


async def test_an_aggregate_without_events_is_as_at_the_beginning(accounts: Repository[Account]) -> None:
    account = await accounts.load("a")
    assert (account.id, account.state, account.version) == ("a", Account(), 0)


async def test_what_was_appended_is_loaded_also_as_it_was(accounts: Repository[Account]) -> None:
    account = await accounts.append(await accounts.load("a"), [credit(1), credit(2)])
    account = await accounts.append(account, credit(3))
    assert (account.state, account.version) == (Account(6, 3), 3)
    assert await accounts.load("a") == account
    assert (await accounts.load("a", version=2)).state == Account(3, 2)
    assert (await accounts.load("a", as_of=datetime(2020, 1, 1, tzinfo=UTC))).version == 0
    with pytest.raises(AggregateNotFound):
        await accounts.load("b", version=1)


async def test_of_two_that_saw_the_same_version_one_appends(accounts: Repository[Account]) -> None:
    seen = await accounts.load("a")
    await accounts.append(seen, credit(1))
    with pytest.raises(VersionConflict):
        await accounts.append(seen, credit(2))
    assert (await accounts.load("a")).state == Account(1, 1)


async def test_only_events_of_the_aggregate_are_appended(accounts: Repository[Account], sdk: Broker) -> None:
    seen = await accounts.load("a")
    with pytest.raises(ValueError, match="Account/b is not Account/a"):
        await accounts.append(seen, [credit(1), credit(1, "b")])
    assert await accounts.append(seen, []) == seen
    others = Repository(sdk, "Account", Account(), apply, tenant="other")
    with pytest.raises(ValueError, match="the repository of other"):
        await others.append(seen, credit(1, tenant_id="acme"))
    assert (await others.append(seen, credit(1))).version == 1
    assert (await accounts.load("a")).version == 0


async def test_to_append_again_what_was_stored_changes_nothing(accounts: Repository[Account]) -> None:
    seen, events = await accounts.load("a"), [credit(1), credit(2)]
    first = await accounts.append(seen, events)
    assert await accounts.append(seen, events) == first  # as after an unknown outcome
    assert await accounts.append(first, events) == first


async def test_writers_in_conflict_decide_again_until_each_has_its_turn(
    broker: Client, accounts: Repository[Account], tenant: str
) -> None:
    decisions = 0

    async def twice(account: Account) -> Iterable[Event]:
        nonlocal decisions
        decisions += 1
        return [credit(account.balance + 1)]

    async with connect(broker.target, tenant=tenant) as another:
        others = Repository(another, "Account", Account(), apply)
        writers = [each.execute("a", twice, attempts=100) for each in [accounts, others] * 5]
        written = await asyncio.gather(*writers)
    assert sorted(each.version for each in written) == list(range(1, 11))
    assert (await accounts.load("a")).state == Account(2**10 - 1, 10)  # each decided on what it appended to
    assert decisions > 10


async def test_after_so_many_conflicts_it_is_told(accounts: Repository[Account], sdk: Broker) -> None:
    decisions = 0

    async def too_slow(account: Account) -> Event:
        nonlocal decisions
        decisions += 1
        await sdk.publish(credit(100))
        return credit(1)

    with pytest.raises(VersionConflict):
        await accounts.execute("a", too_slow, attempts=3)
    assert (decisions, (await accounts.load("a")).version) == (3, 3)


async def test_a_decision_may_be_none_or_an_error(accounts: Repository[Account]) -> None:
    def refuse(account: Account) -> None:
        raise RuntimeError("no money")

    assert (await accounts.execute("a", lambda account: None)).version == 0
    with pytest.raises(RuntimeError, match="no money"):
        await accounts.execute("a", refuse)


async def test_a_snapshot_is_saved_after_so_many_events_and_loaded_as_the_state(sdk: Broker) -> None:
    accounts = Repository(sdk, "Account", Account(), apply, snapshot_every=4)
    for _ in range(10):
        account = await accounts.execute("a", lambda account: credit(1))
    assert (account.version, account.snapshot_version) == (10, 8)
    versions = [each.version async for each in sdk.list_snapshots("Account", "a")]
    assert versions == [8, 4]
    await sdk.save_snapshot("Account", "a", 8, {"balance": 1_000, "credits": 8, "unknown": True})
    assert (await accounts.load("a")).state == Account(1_002, 10)  # it is the snapshot that is read
    assert (await accounts.load("a", version=5)).state == Account(5, 5)


async def test_a_snapshot_that_is_no_longer_understood_is_left_aside(sdk: Broker) -> None:
    def decode(data: Any) -> Account:
        if data["form"] != 2:
            raise PayloadMismatch("an old form")
        return Account(*data["fields"])

    accounts = Repository(
        sdk,
        "Account",
        Account(),
        apply,
        encode=lambda account: {"form": 2, "fields": [account.balance, account.credits]},
        decode=decode,
    )
    account = await accounts.append(await accounts.load("a"), [credit(1), credit(2)])
    await sdk.save_snapshot("Account", "a", 2, {"form": 1})
    assert await accounts.load("a") == account
    saved = await accounts.save_snapshot(account)
    assert await accounts.load("a") == saved == replace(account, snapshot_version=2)


async def test_an_append_whose_snapshot_fails_is_done(sdk: Broker, caplog: pytest.LogCaptureFixture) -> None:
    accounts = Repository(sdk, "Account", Account(), apply, snapshot_every=1, encode=lambda account: b"")
    account = await accounts.append(await accounts.load("a"), credit(1))
    assert (account.version, account.snapshot_version) == (1, 0)
    assert "no snapshot of Account a" in caplog.text


async def test_a_restart_of_the_broker_in_the_middle_appends_once(restarts: Restarts, tenant: str) -> None:
    async with connect(restarts.target, tenant=tenant) as sdk:
        accounts = Repository(sdk, "Account", Account(), apply)

        async def write() -> None:
            for _ in range(20):
                await accounts.execute("a", lambda account: credit(1), attempts=100)

        await accounts.execute("a", lambda account: credit(1))
        writers = [asyncio.create_task(write()) for _ in range(2)]
        await restarts.kill()
        await restarts.start()
        await asyncio.gather(*writers)
        assert (await accounts.load("a")).state == Account(41, 41)

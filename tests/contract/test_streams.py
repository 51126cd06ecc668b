"""What the streams promise, on true Redis and Valkey servers."""

from __future__ import annotations

import asyncio
import random
from contextlib import AsyncExitStack, aclosing
from typing import TYPE_CHECKING, Any

import pytest
from eventbroker_server.domain.ack_id import RETRY, AckId, Lane
from eventbroker_server.domain.errors import UnsafeStore
from eventbroker_server.ports import (
    Entry,
    GroupState,
    Holding,
    Membership,
    Outcome,
    Pending,
    Progress,
    Refiltered,
    Signal,
    Stale,
    Waiting,
    Where,
)
from eventbroker_server.redis import connection
from eventbroker_server.redis.connection import check_redis, open_redis
from eventbroker_server.redis.keys import Keys
from eventbroker_server.redis.streams import RedisStreams

from tests.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

    from eventbroker_server.ports import Received

    from tests.conftest import Stores

USER, ROLE = "user.created", "role.granted"
DONE, ALREADY_SETTLED, OUTDATED = Outcome.DONE, Outcome.ALREADY_SETTLED, Outcome.OUTDATED
GROUP = "acme:billing"
ANN, BOB = "ann@p1", "bob@p2"  # consumers, each with the process that speaks for it


class Shard:
    """Shard 0 as one broker process sees it, and one group of generation 1 in it."""

    def __init__(self, streams: RedisStreams, redis: Any, prefix: str) -> None:
        self.streams = streams
        self.redis = redis
        self.keys = Keys(prefix, 0)

    async def relay(self, first: int, last: int, *types: str) -> int | None:
        """Relay events at these positions, of these types in turn."""
        types = types or (USER,)
        return await self.streams.relay(
            0, [Entry(at, types[(at - first) % len(types)], "acme", b"event %d" % at) for at in range(first, last + 1)]
        )

    async def open(
        self, *types: str, checkpoint: int = 0, generation: int = 1, make: bool = False
    ) -> GroupState | None:
        membership = Membership(checkpoint, generation)
        return await self.streams.open_group(0, GROUP, types or (USER,), membership, make=make)

    async def make(self, *types: str, checkpoint: int = 0, generation: int = 1) -> GroupState:
        state = await self.open(*types, checkpoint=checkpoint, generation=generation, make=True)
        assert state
        return state

    async def live(self, last: int, *types: str) -> None:
        """Make the group at the beginning, then relay up to `last`."""
        await self.streams.start_at(0, 0)
        await self.make(*types)
        await self.relay(1, last, *types)

    async def feed(self, state: GroupState, upto: int, *positions: int) -> GroupState:
        entries = [Entry(at, USER, "acme", b"event %d" % at) for at in positions]
        return await self.streams.feed(0, GROUP, state, upto, entries)

    async def read(self, consumer: str, count: int, *types: str, generation: int = 1) -> list[Received]:
        return await self.streams.read(0, GROUP, generation, consumer, types or (USER,), count)

    async def hand_back(self, *holdings: Holding, generation: int = 1, tell: bool = False) -> list[Outcome]:
        return await self.streams.hand_back(0, GROUP, generation, holdings, tell=tell)

    async def set_aside(self, *holdings: Holding, generation: int = 1, spare: bool = False) -> list[Outcome]:
        return (await self.streams.set_aside(0, GROUP, generation, holdings, note="why", spare_extended=spare))[0]

    async def forget(self, *holdings: Holding, generation: int = 1) -> None:
        await self.streams.forget(0, GROUP, generation, holdings)

    async def aside(self, idle: float = 0.0) -> list[tuple[Holding, str]]:
        return await self.streams.set_aside_before(0, GROUP, 1, [USER], idle)

    async def requeue(self, *waiting: Waiting, generation: int = 1, failed: Holding | None = None) -> bool:
        entries = [(Entry(at, USER, "acme", b"event %d" % at), attempts, failed) for at, attempts in waiting]
        return await self.streams.requeue(0, GROUP, generation, entries)

    async def leave(self, consumer: str) -> None:
        await self.streams.leave(0, GROUP, 1, [USER], consumer)

    async def holdings(self, *types: str, consumer: str = "", idle: float = 0.0) -> list[Holding]:
        return await self.streams.holdings(0, GROUP, 1, types or (USER,), consumer=consumer, idle=idle)

    async def progress(self, *types: str, known: int = 1, most: int = 0) -> Progress:
        return await self.streams.progress(0, GROUP, 1, types or (USER,), known, most=most)

    async def consumers(self) -> set[str]:
        return {found["name"].decode() for found in await self.redis.xinfo_consumers(self.keys.events(USER), GROUP)}

    async def ids(self, event_type: str = USER) -> list[str]:
        return [entry_id.decode() for entry_id, _ in await self.redis.xrange(self.keys.events(event_type))]


@pytest.fixture
async def new_shard(stores: Stores) -> AsyncIterator[Callable[[str], Awaitable[Shard]]]:
    """Another process at the same shard, with connections of its own."""
    async with AsyncExitStack() as stack:

        async def make(process: str) -> Shard:
            redis = await stack.enter_async_context(open_redis(stores.settings(), stores.redis))
            return Shard(RedisStreams(redis, stores.prefix, process), redis, stores.prefix)

        yield make


@pytest.fixture
async def shard(new_shard: Callable[[str], Awaitable[Shard]]) -> Shard:
    return await new_shard("p1")


@pytest.fixture
async def other(new_shard: Callable[[str], Awaitable[Shard]]) -> Shard:
    return await new_shard("p2")


def ack(received: Received, consumer: str, *, generation: int = 1, number: int = 0) -> AckId:
    lane = Lane(GROUP, 0, generation, received.stream, consumer)
    return AckId(lane, received.position, number or received.number, received.retry)


def held(received: Received, consumer: str) -> Holding:
    return Holding(received.position, received.stream, consumer, received.number, received.retry)


def positions(taken: Sequence[Received] | Sequence[Holding]) -> list[int]:
    return [one.position for one in taken]


# The relay.


async def test_events_are_relayed_in_order_with_their_position_as_id(shard: Shard) -> None:
    await shard.streams.start_at(0, 0)
    assert await shard.relay(1, 2, USER, ROLE) == 2
    assert await shard.relay(3, 5) == 5
    assert await shard.streams.head(0) == 5
    assert await shard.ids() == ["1-0", "3-0", "4-0", "5-0"]
    assert await shard.ids(ROLE) == ["2-0"]
    assert await shard.streams.types(0) == {USER, ROLE}


async def test_a_relay_that_is_repeated_changes_nothing(shard: Shard, other: Shard) -> None:
    await shard.streams.start_at(0, 0)
    for relaying in (shard, shard, other):
        assert await relaying.relay(1, 3) == 3
    assert await shard.ids() == ["1-0", "2-0", "3-0"]


@pytest.mark.parametrize(("first", "last"), [(5, 6), (2, 3), (3, 4), (1, 5)], ids=["gap", "stale", "overlap", "longer"])
async def test_a_relay_that_does_not_follow_is_refused_with_the_head(shard: Shard, first: int, last: int) -> None:
    await shard.streams.start_at(0, 0)
    await shard.relay(1, 3)
    assert await shard.relay(first, last, ROLE) == 3
    assert await shard.streams.head(0) == 3
    assert await shard.streams.types(0) == {USER}
    assert await shard.ids(ROLE) == []


async def test_relays_that_race_leave_each_event_once_and_in_order(shard: Shard, other: Shard) -> None:
    await shard.streams.start_at(0, 0)
    await shard.make(USER, ROLE)
    last = 300

    async def race(relaying: Shard, chance: random.Random) -> None:
        """Relay pieces that fit, or begin too early or too late."""
        head = 0
        while head < last:
            first = min(last, max(1, head + chance.randint(0, 2)))
            head = await relaying.relay(first, min(last, first + chance.randint(0, 9))) or 0

    await asyncio.gather(*(race((shard, other)[seed % 2], random.Random(seed)) for seed in range(4)))
    assert await shard.ids() == [f"{at}-0" for at in range(1, last + 1)]
    assert [one.body for one in await shard.read(ANN, 1000)] == [b"event %d" % at for at in range(1, last + 1)]


async def test_a_redis_that_knows_nothing_says_so(shard: Shard) -> None:
    assert await shard.streams.head(0) is None
    assert await shard.relay(1, 3) is None
    assert await shard.streams.types(0) == set()
    assert await shard.redis.keys(f"{shard.keys.prefix}:*") == []


async def test_a_head_is_set_once(shard: Shard, other: Shard) -> None:
    assert await shard.streams.start_at(0, 7) == 7
    assert await other.streams.start_at(0, 9) == 7
    assert await shard.relay(8, 8) == 8


async def test_shards_do_not_meet(shard: Shard) -> None:
    await shard.streams.start_at(0, 0)
    await shard.relay(1, 3)
    assert await shard.streams.head(1) is None
    assert await shard.streams.types(1) == set()


async def test_scripts_that_the_server_forgot_are_loaded_again(shard: Shard) -> None:
    await shard.streams.start_at(0, 0)
    await shard.relay(1, 1)
    await shard.redis.script_flush()
    assert await shard.relay(2, 2) == 2


# Opening a group.


async def test_a_group_is_made_only_when_told(shard: Shard) -> None:
    await shard.streams.start_at(0, 5)
    assert await shard.open() is None
    assert await shard.make(checkpoint=2) == GroupState(1, joined_at=5, backfill_to=5, fed=2, waiting=0)
    assert await shard.open() == GroupState(1, joined_at=5, backfill_to=5, fed=2, waiting=0)


@pytest.mark.parametrize("make", [False, True])
async def test_a_group_cannot_be_opened_while_the_shard_has_no_head(shard: Shard, make: bool) -> None:
    with pytest.raises(Stale):
        await shard.open(make=make)


async def test_of_many_who_make_a_group_one_does(shard: Shard, other: Shard) -> None:
    await shard.streams.start_at(0, 5)
    made = await shard.make(checkpoint=2)
    await shard.relay(6, 6)
    assert await other.make(checkpoint=4) == made
    assert positions(await other.read(BOB, 10)) == [6]


async def test_a_group_is_made_anew_at_a_later_generation(shard: Shard) -> None:
    await shard.live(3)
    taken = await shard.read(ANN, 2)
    assert await shard.open(generation=2) is None
    state = await shard.make(checkpoint=1, generation=2)
    assert state == GroupState(2, joined_at=3, backfill_to=3, fed=1, waiting=0)
    await shard.relay(4, 4)
    assert positions(await shard.read(ANN, 10, generation=2)) == [4]
    assert await shard.streams.settle([ack(one, ANN) for one in taken]) == [OUTDATED, OUTDATED]
    with pytest.raises(Stale):
        await shard.read(ANN, 1)


async def test_who_knows_an_earlier_generation_learns_the_present_one(shard: Shard) -> None:
    await shard.streams.start_at(0, 3)
    made = await shard.make(generation=4)
    assert await shard.open(generation=2) == await shard.make(generation=3) == made


async def test_a_checkpoint_ahead_of_the_head_is_where_live_begins(shard: Shard) -> None:
    await shard.streams.start_at(0, 3)
    assert await shard.make(checkpoint=5) == GroupState(1, joined_at=5, backfill_to=5, fed=5, waiting=0)
    await shard.relay(4, 6)
    assert positions(await shard.read(ANN, 10)) == [6]


async def test_a_new_type_is_joined_where_the_group_joined(shard: Shard) -> None:
    await shard.streams.start_at(0, 0)
    await shard.relay(1, 2, USER, ROLE)
    state = await shard.make(USER)
    await shard.relay(3, 5, ROLE, USER)
    assert await shard.open(USER, ROLE) == state
    assert positions(await shard.read(ANN, 10, USER, ROLE)) == [3, 4, 5]


@pytest.mark.parametrize("lost", ["live", "backfill"])
@pytest.mark.parametrize("how", ["destroyed", "deleted"])
async def test_a_stream_that_was_lost_is_noticed_and_mended_by_making_the_group_anew(
    shard: Shard, lost: str, how: str
) -> None:
    await shard.live(3)
    key = shard.keys.events(USER) if lost == "live" else shard.keys.backfill(GROUP, 1)
    await (shard.redis.xgroup_destroy(key, GROUP) if how == "destroyed" else shard.redis.delete(key))
    for looking in (shard.read(ANN, 10), shard.progress(), shard.holdings()):
        with pytest.raises(Stale):
            await looking
    assert await shard.open() is None
    assert await shard.make(generation=2) == GroupState(2, joined_at=3, backfill_to=3, fed=0, waiting=0)
    assert await shard.read(ANN, 10, generation=2) == []


async def test_a_group_that_is_deleted_is_gone(shard: Shard) -> None:
    await shard.live(3)
    await shard.streams.delete_group(0, GROUP, 1, [USER])
    assert await shard.open() is None
    assert await shard.redis.xinfo_groups(shard.keys.events(USER)) == []
    assert await shard.redis.keys(f"{shard.keys.prefix}:*{GROUP}*") == []


# Reading.


async def test_consumers_share_the_events_of_a_group(shard: Shard, other: Shard) -> None:
    await shard.live(6)
    taken = [await shard.read(ANN, 2), await other.read(BOB, 3), await shard.read(ANN, 3), await other.read(BOB, 3)]
    assert [positions(some) for some in taken] == [[1, 2], [3, 4, 5], [6], []]
    assert {(one.number, one.attempt, one.tenant_id) for one in taken[0]} == {(1, 1, "acme")}


async def test_groups_get_the_same_events_each_for_itself(shard: Shard) -> None:
    await shard.live(2)
    await shard.streams.open_group(0, "acme:audit", [USER], Membership(2, 1), make=True)
    await shard.relay(3, 3)
    assert positions(await shard.streams.read(0, "acme:audit", 1, ANN, [USER], 10)) == [3]
    assert positions(await shard.read(ANN, 10)) == [1, 2, 3]


@pytest.mark.parametrize("count", range(1, 9))
async def test_never_more_is_taken_than_asked_for(shard: Shard, count: int) -> None:
    await shard.streams.start_at(0, 2)
    state = await shard.make(USER, ROLE)
    await shard.feed(state, 2, 1, 2)
    await shard.relay(3, 6, USER, ROLE)
    back = await shard.read(ANN, 2, USER, ROLE)
    await shard.hand_back(*(held(one, ANN) for one in back))
    seen: list[int] = []
    while some := await shard.read(BOB, count, USER, ROLE):
        assert len(some) <= count
        seen += positions(some)
    assert sorted(seen) == [1, 2, 3, 4, 5, 6]


async def test_a_read_takes_an_even_share_of_each_stream(shard: Shard) -> None:
    await shard.streams.start_at(0, 10)
    state = await shard.make(USER, ROLE)
    await shard.feed(state, 10, *range(1, 11))
    await shard.relay(11, 20, USER)
    await shard.relay(21, 30, ROLE)
    assert positions(await shard.read(ANN, 9, USER, ROLE)) == [1, 2, 3, 11, 12, 13, 21, 22, 23]


async def test_what_quiet_streams_leave_is_taken_from_busy_ones(shard: Shard) -> None:
    await shard.live(100, USER, ROLE)
    await shard.read(ANN, 98, USER, ROLE)
    await shard.relay(101, 120, USER)
    await shard.relay(121, 121, ROLE)
    taken = await shard.read(ANN, 15, USER, ROLE)
    assert len(taken) == 15
    assert 121 in positions(taken)


async def test_what_was_handed_back_is_taken_first(shard: Shard) -> None:
    await shard.live(3)
    taken = await shard.read(ANN, 3)
    await shard.relay(4, 6)
    await shard.hand_back(*(held(one, ANN) for one in taken[1:]))
    assert positions(await shard.read(BOB, 1)) == [2]
    assert positions(await shard.read(BOB, 3)) == [3, 4, 5]


async def test_another_process_hears_of_what_was_handed_back_by_reading(shard: Shard, other: Shard) -> None:
    await shard.live(3)
    taken = await shard.read(ANN, 3)
    await shard.relay(4, 6)
    await shard.hand_back(*(held(one, ANN) for one in taken[1:]))
    assert positions(await other.read(BOB, 1)) == [4]
    assert positions(await other.read(BOB, 2)) == [2, 3]
    assert positions(await other.read(BOB, 9)) == [5, 6]


async def test_a_read_of_one_finds_the_only_stream_that_has_any(shard: Shard) -> None:
    await shard.streams.start_at(0, 0)
    await shard.make(USER, ROLE)
    await shard.relay(1, 20)
    taken = [await shard.read(ANN, 1, USER, ROLE) for _ in range(20)]
    assert [positions(one) for one in taken] == [[at] for at in range(1, 21)]


async def test_an_entry_that_was_trimmed_while_pending_does_not_count_as_settled(shard: Shard) -> None:
    await shard.live(3)
    taken = await shard.read(ANN, 2)
    await shard.redis.xtrim(shard.keys.events(USER), minid="3-0", approximate=False)
    try:
        await shard.hand_back(*(held(one, ANN) for one in taken))
        await shard.read(ANN, 10)
        settled = (await shard.progress()).settled
    except Stale:
        settled = 0  # the group is made anew at its checkpoint
    assert settled == 0


async def test_what_a_group_does_not_want_is_dropped_from_it_alone(shard: Shard) -> None:
    await shard.streams.start_at(0, 1)
    state = await shard.make()
    await shard.feed(state, 1, 1)
    await shard.relay(2, 2)
    await shard.streams.drop(0, GROUP, 1, await shard.read(ANN, 10))
    assert await shard.holdings() == []
    assert (await shard.progress()).settled == 2
    assert await shard.ids() == ["2-0"]


# Settling.


async def test_a_delivery_is_settled_once(shard: Shard) -> None:
    await shard.live(3)
    taken = await shard.read(ANN, 3)
    assert await shard.streams.settle([ack(one, ANN) for one in taken[:2]]) == [DONE, DONE]
    assert await shard.streams.settle([ack(one, ANN) for one in taken]) == [ALREADY_SETTLED, ALREADY_SETTLED, DONE]
    assert await shard.holdings(consumer=ANN) == []


SETTLING = ["settle", "extend"]


async def settling(shard: Shard, way: str, *deliveries: AckId) -> list[Outcome]:
    if way == "settle":
        return await shard.streams.settle(deliveries)
    return await shard.streams.extend(deliveries, 60)


@pytest.mark.parametrize("way", SETTLING)
@pytest.mark.parametrize(
    ("consumer", "changes"),
    [(BOB, {}), (ANN, {"number": 2}), (ANN, {"generation": 2}), (ANN, {"generation": 0})],
    ids=["wrong consumer", "wrong number", "later generation", "earlier generation"],
)
async def test_a_delivery_that_is_not_the_latest_changes_nothing(
    shard: Shard, way: str, consumer: str, changes: dict[str, int]
) -> None:
    await shard.live(1)
    (one,) = await shard.read(ANN, 1)
    assert await settling(shard, way, ack(one, consumer, **changes)) == [OUTDATED]
    assert await shard.holdings() == [held(one, ANN)]
    assert await settling(shard, way, ack(one, ANN)) == [DONE]


@pytest.mark.parametrize("way", SETTLING)
@pytest.mark.parametrize("next_consumer", [ANN, BOB])
async def test_a_delivery_that_was_handed_on_is_outdated(shard: Shard, way: str, next_consumer: str) -> None:
    await shard.live(1)
    (first,) = await shard.read(ANN, 1)
    await shard.hand_back(held(first, ANN))
    assert await settling(shard, way, ack(first, ANN)) == [OUTDATED]
    (second,) = await shard.read(next_consumer, 1)
    assert await settling(shard, way, ack(first, ANN)) == [OUTDATED]
    assert await settling(shard, way, ack(second, next_consumer)) == [DONE]


async def test_a_delivery_of_a_settled_event_cannot_be_extended(shard: Shard) -> None:
    await shard.live(1)
    (one,) = await shard.read(ANN, 1)
    await shard.streams.settle([ack(one, ANN)])
    assert await shard.streams.extend([ack(one, ANN)], 60) == [ALREADY_SETTLED]


async def test_an_id_twice_in_one_call_is_settled_once(shard: Shard) -> None:
    await shard.live(1)
    (one,) = await shard.read(ANN, 1)
    again = ack(one, ANN)
    assert await shard.streams.settle([again, ack(one, ANN, number=9), again]) == [
        DONE,
        ALREADY_SETTLED,
        ALREADY_SETTLED,
    ]


async def test_each_of_many_ids_gets_its_own_outcome(shard: Shard) -> None:
    await shard.live(3, USER, ROLE)
    taken = await shard.read(ANN, 3, USER, ROLE)
    await shard.streams.settle([ack(taken[1], ANN)])
    asked = [ack(taken[2], ANN), ack(taken[1], ANN), ack(taken[0], ANN, number=2)]
    assert await shard.streams.settle(asked) == [DONE, ALREADY_SETTLED, OUTDATED]
    assert positions(await shard.holdings(USER, ROLE)) == [1]


async def test_five_thousand_ids_are_settled_in_one_call(shard: Shard) -> None:
    await shard.streams.start_at(0, 0)
    await shard.make(USER, ROLE)
    for first in range(1, 5001, 1000):
        await shard.relay(first, first + 999, USER, ROLE)
    taken = await shard.read(ANN, 5000, USER, ROLE)
    assert await shard.streams.extend([ack(one, ANN) for one in taken], 60) == [DONE] * 5000
    assert await shard.streams.settle([ack(one, ANN) for one in taken]) == [DONE] * 5000
    assert await shard.progress(USER, ROLE, known=2) == Progress(5000, 5000, None)
    assert await shard.redis.exists(shard.keys.extended(GROUP)) == 0


async def test_a_settled_event_leaves_the_backfill(shard: Shard) -> None:
    await shard.streams.start_at(0, 2)
    state = await shard.feed(await shard.make(), 2, 1, 2)
    assert state.waiting == 2
    (first,) = await shard.read(ANN, 1)
    assert first.stream == ""
    assert (await shard.feed(state, 2)).waiting == 1
    backfill = shard.keys.backfill(GROUP, 1)
    assert await shard.redis.xlen(backfill) == 2
    assert await shard.streams.settle([ack(first, ANN)]) == [DONE]
    assert await shard.redis.xlen(backfill) == 1


async def test_a_lost_head_is_told_by_the_streams_that_are_there(shard: Shard) -> None:
    await shard.live(3)
    await shard.redis.delete(shard.keys.head)
    assert await shard.streams.start_at(0, 7) == 3
    assert await shard.streams.head(0) == 3


# The bounds of the tail.


async def trim(shard: Shard, age: float = 3600.0, size: int = 1 << 30) -> int:
    return await shard.streams.trim(0, age, size)


async def aged(shard: Shard) -> bool:
    """Whether everything that was relayed is more than a second old, and trimmed by now."""
    return await trim(shard, age=1.0) > 0


async def test_what_is_young_and_small_is_kept(shard: Shard) -> None:
    await shard.live(3)
    assert await trim(shard) == 0
    assert await shard.ids() == ["1-0", "2-0", "3-0"]


async def test_the_tail_is_bounded_by_size(shard: Shard) -> None:
    await shard.live(3)
    assert await trim(shard, size=len(b"event 1") * 3) == 0
    await shard.streams.settle([ack(one, ANN) for one in await shard.read(ANN, 3)])
    assert await trim(shard, size=0) == 3
    assert await shard.ids() == []
    assert await shard.relay(4, 4) == 4
    assert positions(await shard.read(ANN, 9)) == [4]


async def test_the_tail_is_bounded_by_age(shard: Shard) -> None:
    await shard.live(2, USER, ROLE)
    await shard.read(ANN, 9, USER, ROLE)
    assert not await aged(shard)
    await eventually(lambda: aged(shard))
    await shard.relay(3, 3)
    assert await shard.ids() == ["3-0"]
    assert await shard.ids(ROLE) == []


async def test_a_group_that_read_everything_goes_on_after_a_trim(shard: Shard) -> None:
    await shard.live(3)
    first, *rest = await shard.read(ANN, 3)
    assert await trim(shard, size=0) == 3
    assert await shard.open()
    assert await shard.streams.settle([ack(one, ANN) for one in rest]) == [DONE, DONE]
    assert await shard.progress() == Progress(3, 0, 1)
    assert await shard.streams.settle([ack(first, ANN)]) == [DONE]


async def test_a_group_that_is_overtaken_is_made_anew_at_its_checkpoint(shard: Shard) -> None:
    await shard.live(3)
    await shard.read(ANN, 2)
    assert await trim(shard, size=0) == 3
    with pytest.raises(Stale):
        await shard.read(ANN, 1)
    assert await shard.open() is None
    assert await shard.make(generation=2) == GroupState(2, joined_at=3, backfill_to=3, fed=0, waiting=0)


async def test_a_type_whose_beginning_was_trimmed_before_the_group_joined_it_makes_the_group_anew(shard: Shard) -> None:
    await shard.live(1)
    await shard.read(ANN, 1)
    await shard.relay(2, 3, ROLE)
    await trim(shard, size=0)
    assert await shard.open(USER, ROLE) is None
    assert await shard.make(USER, ROLE, checkpoint=1, generation=2)


async def test_a_new_type_is_joined_without_ado_after_a_trim(shard: Shard) -> None:
    await shard.live(1)
    await shard.read(ANN, 1)
    await trim(shard, size=0)
    await shard.relay(2, 3, ROLE)
    assert await shard.open(USER, ROLE)
    assert positions(await shard.read(ANN, 9, USER, ROLE)) == [2, 3]


async def test_a_lost_head_is_told_by_streams_that_were_trimmed(shard: Shard) -> None:
    await shard.live(3)
    await shard.read(ANN, 3)
    await trim(shard, size=0)
    await shard.redis.delete(shard.keys.head)
    assert await shard.streams.start_at(0, 7) == 3


# What is trimmed while it is pending.


@pytest.fixture
async def trimmed(shard: Shard) -> Received:
    """The first of three events, pending with ANN while nothing is left of the tail; the others are settled."""
    await shard.live(3)
    first, *rest = await shard.read(ANN, 3)
    await shard.streams.settle([ack(one, ANN) for one in rest])
    assert await trim(shard, size=0) == 3
    return first


async def test_of_what_was_trimmed_while_pending_that_alone_comes_again_without_its_event(
    shard: Shard, other: Shard, trimmed: Received
) -> None:
    assert await shard.hand_back(held(trimmed, ANN)) == [DONE]
    assert await shard.progress() == Progress(3, 0, 1)
    (again,) = await other.read(BOB, 9)
    assert again == trimmed._replace(stream=RETRY, retry=1, number=2, tenant_id="", body=b"")
    assert await shard.streams.settle([ack(trimmed, ANN)]) == [OUTDATED]
    assert await shard.streams.extend([ack(trimmed, ANN)], 60) == [OUTDATED]
    assert await shard.hand_back(held(trimmed, ANN)) == [OUTDATED]
    assert await shard.progress() == Progress(3, 0, 1)
    assert await shard.streams.settle([ack(again, BOB)]) == [DONE]
    assert await shard.progress() == Progress(3, 3, None)
    assert await shard.streams.retried(0, GROUP) == []
    assert await shard.redis.xlen(shard.keys.retry(GROUP, 1)) == 0


async def test_what_was_handed_back_before_it_was_trimmed_is_taken_all_the_same(shard: Shard) -> None:
    await shard.live(5)
    taken = await shard.read(ANN, 5)
    await shard.hand_back(*(held(one, ANN) for one in taken[:4]))
    await trim(shard, size=0)
    some = [await shard.read(BOB, 1), await shard.read(BOB, 2), await shard.read(BOB, 9)]
    assert [positions(one) for one in some] == [[1], [2, 3], [4]]
    assert await shard.progress() == Progress(5, 0, 1)
    await shard.streams.settle([ack(taken[4], ANN)])
    await shard.streams.settle([ack(one, BOB) for few in some for one in few])
    assert await shard.progress() == Progress(5, 5, None)


async def test_only_the_latest_delivery_of_what_was_trimmed_can_be_taken_away(shard: Shard, trimmed: Received) -> None:
    later = held(trimmed, ANN)._replace(number=2)
    assert await shard.hand_back(held(trimmed, BOB), later) == [OUTDATED, OUTDATED]
    assert await shard.set_aside(later) == [OUTDATED]
    assert await shard.holdings() == [held(trimmed, ANN)]
    assert await shard.streams.settle([ack(trimmed, ANN)]) == [DONE]


async def test_what_was_trimmed_and_failed_is_set_aside_under_its_new_name(shard: Shard, trimmed: Received) -> None:
    outcomes, aside = await shard.streams.set_aside(
        0, GROUP, 1, [held(trimmed, ANN)], note="why", spare_extended=False, tell=False
    )
    assert (outcomes, aside) == ([DONE], [Holding(1, RETRY, ANN, 1, retry=1)])
    assert await shard.read(BOB, 9) == []
    assert await shard.aside() == [(aside[0]._replace(consumer=shard.streams.aside), "why")]
    assert await shard.progress() == Progress(3, 0, 1)
    there = await shard.streams.whereabouts(0, GROUP, 1, USER, 1)
    assert (there.where, there.consumer) == (Where.PENDING, shard.streams.aside)
    await shard.forget(*aside)
    assert (await shard.streams.whereabouts(0, GROUP, 1, USER, 1)).where is Where.OVER
    assert await shard.progress() == Progress(3, 3, None)
    assert await shard.aside() == []


async def test_what_was_trimmed_and_failed_and_not_forgotten_is_when_its_event_is_queued(
    shard: Shard, trimmed: Received
) -> None:
    _, aside = await shard.streams.set_aside(0, GROUP, 1, [held(trimmed, ANN)], note="why", spare_extended=False)
    await shard.requeue(Waiting(1, 1), failed=aside[0])
    assert await shard.aside() == []
    assert await shard.progress() == Progress(3, 3, None)
    (again,) = await shard.read(BOB, 9)
    assert (again.position, again.attempt, again.body) == (1, 2, b"event 1")


async def test_an_extension_is_spared_though_its_entry_was_trimmed(shard: Shard, trimmed: Received) -> None:
    await shard.streams.extend([ack(trimmed, ANN)], 60)
    assert await shard.set_aside(held(trimmed, ANN), spare=True) == [OUTDATED]
    assert await shard.holdings(consumer=ANN) == [held(trimmed, ANN)]


async def test_retries_that_were_not_read_when_something_trimmed_failed_are_read_after_it(
    shard: Shard, trimmed: Received
) -> None:
    await shard.requeue(Waiting(2, 1), Waiting(3, 4))
    await shard.set_aside(held(trimmed, ANN))
    assert [(one.position, one.attempt) for one in await shard.read(BOB, 9)] == [(2, 2), (3, 5)]
    assert positions([holding for holding, _ in await shard.aside()]) == [1]


async def test_what_was_trimmed_and_is_not_wanted_is_dropped(shard: Shard, trimmed: Received) -> None:
    await shard.hand_back(held(trimmed, ANN))
    await shard.streams.drop(0, GROUP, 1, await shard.read(BOB, 9))
    assert await shard.holdings() == []
    assert await shard.progress() == Progress(3, 3, None)


async def test_what_was_trimmed_is_told_as_not_settled(shard: Shard, trimmed: Received) -> None:
    await shard.hand_back(held(trimmed, ANN))
    assert await shard.progress(most=10) == Progress(3, 0, 1, through=3, but=(1,))


async def test_a_group_made_anew_or_deleted_has_nothing_that_was_trimmed(shard: Shard, trimmed: Received) -> None:
    await shard.hand_back(held(trimmed, ANN))
    await shard.make(checkpoint=3, generation=2)
    assert not await shard.redis.exists(shard.keys.adrift(GROUP))
    await shard.redis.zadd(shard.keys.adrift(GROUP), {"1": 1})
    await shard.streams.delete_group(0, GROUP, 2, [USER])
    assert not await shard.redis.exists(shard.keys.adrift(GROUP))


# More time, and handing back.


async def test_an_extended_delivery_is_not_told_as_idle(shard: Shard) -> None:
    await shard.live(2)
    first, second = await shard.read(ANN, 2)
    assert positions(await shard.holdings(idle=0.0)) == [1, 2]
    assert await shard.holdings(idle=60) == []
    assert await shard.streams.extend([ack(first, ANN)], 60) == [DONE]
    assert await shard.holdings(idle=0.0) == [held(second, ANN)]
    assert await shard.holdings(consumer=ANN) == [held(first, ANN), held(second, ANN)]


async def test_an_extension_ends(shard: Shard) -> None:
    await shard.live(1)
    (one,) = await shard.read(ANN, 1)
    await shard.streams.extend([ack(one, ANN)], 60)
    await shard.streams.extend([ack(one, ANN)], 0.05)
    assert await eventually(shard.holdings) == [held(one, ANN)]


async def test_an_extension_goes_with_its_delivery(shard: Shard) -> None:
    await shard.live(1)
    (first,) = await shard.read(ANN, 1)
    await shard.streams.extend([ack(first, ANN)], 60)
    await shard.hand_back(held(first, ANN))
    (second,) = await shard.read(BOB, 1)
    assert await shard.holdings(idle=0.0) == [held(second, BOB)]


async def test_what_was_handed_back_is_with_nobody(shard: Shard) -> None:
    await shard.live(2)
    taken = await shard.read(ANN, 2)
    assert await shard.hand_back(held(taken[0], ANN)) == [DONE]
    assert await shard.holdings(idle=0.0) == [held(taken[1], ANN)]
    assert await shard.progress() == Progress(head=2, settled=0, unsettled=1)


async def test_many_pages_of_holdings_are_told(shard: Shard) -> None:
    await shard.live(2500)
    await shard.read(ANN, 2500)
    assert positions(await shard.holdings(idle=0.0)) == list(range(1, 2501))
    assert positions(await shard.holdings(consumer=ANN)) == list(range(1, 2501))


@pytest.mark.parametrize("way", ["hand_back", "set_aside"])
@pytest.mark.parametrize(
    ("holding", "generation"),
    [
        (Holding(1, USER, BOB, 1), 1),
        (Holding(1, USER, ANN, 2), 1),
        (Holding(2, USER, ANN, 1), 1),
        (Holding(1, ROLE, ANN, 1), 1),
        (Holding(1, USER, ANN, 1), 2),
    ],
    ids=["consumer", "number", "position", "stream", "generation"],
)
async def test_only_the_latest_delivery_can_be_taken_away(
    shard: Shard, holding: Holding, generation: int, way: str
) -> None:
    await shard.live(1)
    await shard.read(ANN, 1)
    (outcome,) = await getattr(shard, way)(holding, generation=generation)
    assert outcome in (OUTDATED, ALREADY_SETTLED)
    assert await shard.holdings() == [Holding(1, USER, ANN, 1)]


async def test_each_hand_over_is_numbered_and_handing_back_counts_no_attempt(shard: Shard) -> None:
    await shard.live(1)
    numbers = []
    for _ in range(3):
        (one,) = await shard.read(ANN, 1)
        numbers.append((one.number, one.attempt))
        assert await shard.hand_back(held(one, ANN)) == [DONE]
        assert await shard.hand_back(held(one, ANN)) == [OUTDATED]
    assert numbers == [(1, 1), (2, 1), (3, 1)]


async def test_a_consumer_that_leaves_is_forgotten_only_with_nothing_pending(shard: Shard) -> None:
    await shard.live(2)
    first, second = await shard.read(ANN, 2)
    await shard.hand_back(held(first, ANN))
    await shard.leave(ANN)
    assert ANN in await shard.consumers()
    assert await shard.holdings() == [held(second, ANN)]
    await shard.hand_back(held(second, ANN))
    await shard.leave(ANN)
    assert ANN not in await shard.consumers()
    assert positions(await shard.read(BOB, 10)) == [1, 2]


# What failed.


async def test_what_is_set_aside_is_with_nobody_and_not_settled_until_it_is_forgotten(shard: Shard) -> None:
    await shard.live(2)
    first, second = await shard.read(ANN, 2)
    assert await shard.set_aside(held(first, ANN)) == [DONE]
    assert await shard.streams.settle([ack(first, ANN), ack(second, ANN)]) == [OUTDATED, DONE]
    assert await shard.holdings() == []
    assert await shard.read(BOB, 10) == []
    assert await shard.aside() == [(held(first, shard.streams.aside), "why")]
    assert await shard.aside(idle=60) == []
    assert (await shard.progress()).settled == 0

    await shard.forget(held(first, ANN), generation=2)
    assert await shard.aside() != []
    await shard.forget(held(first, ANN))
    assert await shard.aside() == []
    assert (await shard.progress()).settled == 2
    assert not await shard.redis.exists(shard.keys.failing(GROUP))


async def test_what_was_extended_is_spared_only_if_it_is_asked_for(shard: Shard) -> None:
    await shard.live(1)
    (one,) = await shard.read(ANN, 1)
    await shard.streams.extend([ack(one, ANN)], 60)
    assert await shard.set_aside(held(one, ANN), spare=True) == [OUTDATED]
    assert await shard.set_aside(held(one, ANN)) == [DONE]


async def test_only_what_was_set_aside_is_forgotten(shard: Shard) -> None:
    await shard.live(1)
    (one,) = await shard.read(ANN, 1)
    await shard.forget(held(one, ANN))
    assert await shard.holdings() == [held(one, ANN)]


async def test_an_attempt_that_is_due_is_queued_once_and_told_with_its_number(shard: Shard, other: Shard) -> None:
    await shard.live(9)
    await shard.read(BOB, 9)
    await shard.requeue(Waiting(7, 2), Waiting(3, 1))
    await other.requeue(Waiting(3, 1), Waiting(7, 2))
    taken = await other.read(ANN, 10)
    assert [(one.position, one.stream, one.attempt, one.number) for one in taken] == [
        (3, RETRY, 2, 1),
        (7, RETRY, 3, 1),
    ]
    assert taken[0].body == b"event 3"
    await shard.requeue(Waiting(3, 1))
    assert await shard.read(ANN, 10) == []
    with pytest.raises(Stale):
        await shard.requeue(Waiting(4, 1), generation=2)


async def test_a_retry_is_settled_like_another_delivery_and_not_queued_again(shard: Shard) -> None:
    await shard.live(3)
    await shard.read(BOB, 3)
    await shard.requeue(Waiting(2, 1))
    (one,) = await shard.read(ANN, 10)
    assert await shard.streams.extend([ack(one, ANN)], 60) == [DONE]
    assert await shard.streams.settle([ack(one, ANN), ack(one, ANN)]) == [DONE, ALREADY_SETTLED]
    assert await shard.streams.retried(0, GROUP) == [Waiting(2, 1)]
    await shard.requeue(Waiting(2, 1))
    assert await shard.read(ANN, 10) == []
    assert await shard.redis.xlen(shard.keys.retry(GROUP, 1)) == 0
    await shard.streams.unmark(0, GROUP, [2])
    assert await shard.streams.retried(0, GROUP) == []


async def test_a_retry_that_fails_can_be_queued_for_the_attempt_after_it(shard: Shard) -> None:
    await shard.live(1)
    await shard.read(BOB, 1)
    await shard.requeue(Waiting(1, 1))
    (one,) = await shard.read(ANN, 1)
    assert await shard.set_aside(held(one, ANN)) == [DONE]
    await shard.forget(held(one, ANN))
    await shard.requeue(Waiting(1, 2))
    (again,) = await shard.read(ANN, 1)
    assert (again.position, again.attempt, again.retry) == (1, 3, one.retry + 1)
    assert await shard.streams.settle([ack(one, ANN), ack(again, ANN)]) == [ALREADY_SETTLED, DONE]


async def test_a_retry_that_is_handed_back_goes_to_another_consumer_as_the_same_attempt(shard: Shard) -> None:
    await shard.live(1)
    await shard.read(BOB, 1)
    await shard.requeue(Waiting(1, 1))
    (one,) = await shard.read(ANN, 1)
    assert await shard.hand_back(held(one, ANN)) == [DONE]
    (again,) = await shard.read(BOB, 1)
    assert (again.attempt, again.number, again.retry) == (2, 2, one.retry)


async def test_a_failed_delivery_that_was_not_forgotten_is_when_its_event_is_queued(shard: Shard) -> None:
    await shard.live(2)
    one, other = await shard.read(ANN, 2)
    await shard.set_aside(held(one, ANN), held(other, ANN))
    assert await shard.requeue(Waiting(1, 1), failed=held(one, ANN))
    assert [holding.position for holding, _ in await shard.aside()] == [2]
    assert await shard.requeue(Waiting(2, 1), failed=held(one, ANN))
    assert [holding.position for holding, _ in await shard.aside()] == [2]


async def test_a_retry_that_failed_and_was_not_forgotten_can_be_queued_for_the_same_attempt_again(shard: Shard) -> None:
    await shard.live(1)
    await shard.read(BOB, 1)
    await shard.requeue(Waiting(1, 0))
    (one,) = await shard.read(ANN, 1)
    await shard.set_aside(held(one, ANN))
    await shard.requeue(Waiting(1, 0), failed=held(one, ANN))  # redriven
    (again,) = await shard.read(ANN, 1)
    assert (again.position, again.attempt) == (1, 1)
    assert await shard.aside() == []


async def test_no_more_is_queued_while_much_is_to_be_read(shard: Shard) -> None:
    await shard.streams.start_at(0, 0)
    await shard.make()
    assert await shard.requeue(*(Waiting(at, 1) for at in range(1, 1001)))
    assert not await shard.requeue(Waiting(1001, 1))
    await shard.read(ANN, 1)
    assert await shard.requeue(Waiting(1001, 1))


async def test_a_hint_stays_until_its_stream_was_looked_at(shard: Shard, other: Shard) -> None:
    await shard.live(1)
    (one,) = await shard.read(ANN, 1)
    await shard.hand_back(held(one, ANN))
    assert await other.streams.read(0, GROUP, 1, BOB, (), 10) == []
    assert await shard.streams.read(0, GROUP, 1, BOB, (), 10) == []
    assert positions(await other.read(BOB, 10)) == [1]


async def test_progress_is_not_told_to_who_joined_by_another_filter(shard: Shard) -> None:
    await shard.streams.start_at(0, 0)
    membership = Membership(0, 1)
    await shard.streams.open_group(0, GROUP, [USER], membership, make=True, filter_text=USER)
    await shard.relay(1, 1)
    assert await shard.streams.progress(0, GROUP, 1, [USER], 1, USER)
    with pytest.raises(Stale):
        await shard.streams.progress(0, GROUP, 1, [USER], 1, "user.*")


async def test_what_waits_in_the_retry_stream_holds_no_checkpoint_back(shard: Shard) -> None:
    await shard.live(2)
    taken = await shard.read(BOB, 2)
    await shard.streams.settle([ack(one, BOB) for one in taken])
    await shard.requeue(Waiting(1, 1))
    assert (await shard.progress()).settled == 2
    await shard.read(ANN, 1)
    assert (await shard.progress()).settled == 2


async def test_a_group_made_anew_has_no_retries(shard: Shard) -> None:
    await shard.live(3)
    await shard.read(BOB, 3)
    await shard.requeue(Waiting(1, 1), Waiting(2, 1))
    (one, _) = await shard.read(ANN, 2)
    await shard.streams.settle([ack(one, ANN)])
    await shard.make(checkpoint=3, generation=2)
    assert await shard.read(ANN, 10, generation=2) == []
    assert await shard.streams.retried(0, GROUP) == []
    await shard.requeue(Waiting(1, 1), generation=2)
    assert positions(await shard.read(ANN, 10, generation=2)) == [1]
    assert await shard.redis.exists(shard.keys.retry(GROUP, 1)) == 0


# The backfill.


async def test_history_is_fed_page_by_page_and_joins_the_live_events(shard: Shard) -> None:
    await shard.streams.start_at(0, 5)
    state = await shard.make(checkpoint=1)
    state = await shard.feed(state, 3, 2)
    assert state == GroupState(1, joined_at=5, backfill_to=5, fed=3, waiting=1)
    assert state.backfilling
    state = await shard.feed(state, 5, 4, 5)
    assert not state.backfilling
    await shard.relay(6, 6)
    taken = await shard.read(ANN, 10)
    assert [(one.position, one.stream) for one in taken] == [(2, ""), (4, ""), (5, ""), (6, USER)]
    assert taken[0].body == b"event 2"


async def test_turns_at_feeding_follow_each_other_whoever_takes_them(shard: Shard, other: Shard) -> None:
    await shard.streams.start_at(0, 5)
    state = await shard.make()
    assert await shard.streams.turn(0, GROUP, state, 600) == (True, 600)
    for each in (shard, other):
        taken, wait = await each.streams.turn(0, GROUP, state, 600)
        assert not taken
        assert 590 < wait <= 600


async def test_a_turn_that_was_let_pass_is_made_up_for_once(shard: Shard) -> None:
    await shard.streams.start_at(0, 5)
    state = await shard.make()
    now = (await shard.redis.time())[0]
    await shard.redis.hset(shard.keys.state(GROUP), "turn", (now - 6000) * 1000)
    taken = [(await shard.streams.turn(0, GROUP, state, 600))[0] for _ in range(3)]
    assert taken == [True, True, False]


async def test_who_does_not_know_what_was_fed_takes_no_turn(shard: Shard) -> None:
    await shard.streams.start_at(0, 5)
    state = await shard.make()
    for stale in (state._replace(fed=4), state._replace(generation=2)):
        with pytest.raises(Stale):
            await shard.streams.turn(0, GROUP, stale, 600)
    assert (await shard.streams.turn(0, GROUP, state, 600))[0]


async def test_who_feeds_what_was_fed_is_stale(shard: Shard, other: Shard) -> None:
    await shard.streams.start_at(0, 5)
    state = await shard.make()
    fed = await shard.feed(state, 3, 1, 2, 3)
    with pytest.raises(Stale):
        await other.feed(state, 3, 1, 2, 3)
    with pytest.raises(Stale):
        await other.feed(fed._replace(fed=4), 5, 5)
    with pytest.raises(Stale):
        await other.feed(fed._replace(generation=2), 5, 4, 5)
    assert await other.feed(fed, 5) == fed._replace(fed=5)
    assert positions(await shard.read(ANN, 10)) == [1, 2, 3]


async def test_a_page_without_events_moves_the_backfill_on(shard: Shard) -> None:
    await shard.streams.start_at(0, 5)
    assert await shard.feed(await shard.make(), 5) == GroupState(1, 5, 5, fed=5, waiting=0)
    assert await shard.progress(known=0) == Progress(5, 5, None)


# Progress.


async def test_a_group_has_come_to_right_before_its_oldest_unsettled_event(shard: Shard) -> None:
    await shard.live(4)
    assert await shard.progress() == Progress(head=4, settled=0, unsettled=1)
    taken = await shard.read(ANN, 3)
    assert await shard.progress() == Progress(head=4, settled=0, unsettled=1)
    for settled, expected in [(1, (0, 1)), (0, (2, 3)), (2, (3, 4))]:
        await shard.streams.settle([ack(taken[settled], ANN)])
        assert await shard.progress() == Progress(4, *expected)
    (last,) = await shard.read(ANN, 10)
    await shard.streams.settle([ack(last, ANN)])
    assert await shard.progress() == Progress(head=4, settled=4, unsettled=None)


@pytest.mark.parametrize(
    ("most", "through", "but", "beyond"),
    [(10, 8, (1, 5, 6, 8), [(2, 5), (7, 8)]), (3, 6, (1, 5, 6, 8), [(2, 5)]), (1, 1, (1, 8), [])],
    ids=["all", "up to the third", "up to the first"],
)
async def test_what_is_settled_beyond_the_oldest_is_told(
    shard: Shard, most: int, through: int, but: tuple[int, ...], beyond: list[tuple[int, int]]
) -> None:
    await shard.live(6)
    await shard.relay(7, 8, ROLE)
    await shard.make(USER, ROLE)
    taken = await shard.read(ANN, 10, USER, ROLE)
    await shard.streams.settle([ack(one, ANN) for one in taken if one.position in {2, 3, 4, 7}])
    await shard.relay(9, 10)
    told = await shard.progress(USER, ROLE, known=2, most=most)
    assert told == Progress(head=10, settled=0, unsettled=1, through=through, but=but)
    assert told.beyond() == beyond


async def test_what_is_not_read_or_not_fed_is_not_settled_beyond_the_oldest(shard: Shard) -> None:
    await shard.streams.start_at(0, 9)
    state = await shard.feed(await shard.make(), 6, 1, 2, 3, 4, 6)
    taken = await shard.read(ANN, 3)
    await shard.streams.settle([ack(one, ANN) for one in taken if one.position > 1])
    assert (await shard.progress(known=0, most=10)).beyond() == [(2, 4)]
    rest = await shard.read(ANN, 10)
    await shard.streams.settle([ack(one, ANN) for one in rest])
    assert (await shard.progress(known=0, most=10)).beyond() == [(2, 7)]
    await shard.feed(state, 9)
    assert (await shard.progress(known=0, most=10)).beyond() == [(2, 10)]


async def test_events_of_other_types_do_not_hold_a_group_up(shard: Shard) -> None:
    await shard.live(2, USER)
    await shard.relay(3, 5, ROLE)
    taken = await shard.read(ANN, 10)
    await shard.streams.settle([ack(one, ANN) for one in taken])
    assert await shard.progress(known=2) == Progress(head=5, settled=5, unsettled=None)


async def test_history_that_is_not_fed_is_not_settled(shard: Shard) -> None:
    await shard.streams.start_at(0, 5)
    state = await shard.make(checkpoint=1)
    assert await shard.progress(known=0) == Progress(head=5, settled=1, unsettled=None)
    state = await shard.feed(state, 4, 3)
    assert await shard.progress(known=0) == Progress(head=5, settled=2, unsettled=3)
    (one,) = await shard.read(ANN, 10)
    await shard.streams.settle([ack(one, ANN)])
    assert await shard.progress(known=0) == Progress(head=5, settled=4, unsettled=None)
    await shard.feed(state, 5)
    assert await shard.progress(known=0) == Progress(head=5, settled=5, unsettled=None)


async def test_progress_is_stale_when_a_type_appears_or_the_generation_is_another(shard: Shard) -> None:
    await shard.live(1)
    await shard.relay(2, 2, ROLE)
    with pytest.raises(Stale):
        await shard.progress(known=1)
    with pytest.raises(Stale):
        await shard.streams.progress(0, GROUP, 2, [USER], 2)


# The loss of everything.


async def test_after_the_loss_of_redis_nothing_goes_on_as_if_nothing_had_happened(shard: Shard) -> None:
    await shard.live(3)
    state = await shard.open()
    assert state
    first, second = await shard.read(ANN, 2)
    await shard.redis.flushall()
    assert await shard.streams.head(0) is None
    assert await shard.relay(4, 4) is None
    assert await shard.streams.settle([ack(first, ANN)]) == [OUTDATED]
    assert await shard.streams.extend([ack(first, ANN)], 60) == [OUTDATED]
    assert await shard.hand_back(held(second, ANN)) == [OUTDATED]
    for looking in (
        shard.read(ANN, 1),
        shard.progress(),
        shard.holdings(),
        shard.feed(state, 3),
        shard.open(make=True),
    ):
        with pytest.raises(Stale):
            await looking

    await shard.streams.start_at(0, 4)
    assert await shard.open() is None
    assert await shard.make(checkpoint=1, generation=2) == GroupState(2, joined_at=4, backfill_to=4, fed=1, waiting=0)
    assert await shard.streams.settle([ack(first, ANN)]) == [OUTDATED]


# Signals.


async def next_signal(signals: AsyncIterator[Signal | None]) -> Signal | None:
    async with asyncio.timeout(10):
        return await anext(signals)


async def next_told(signals: AsyncIterator[Signal | None]) -> Signal:
    """The next signal, whatever disturbances come before it."""
    while (told := await next_signal(signals)) is None:
        pass
    return told


async def test_signals_begin_with_the_confession_that_earlier_ones_are_not_known(shard: Shard, other: Shard) -> None:
    await other.streams.tell_opened(0, GROUP, "early")
    async with aclosing(shard.streams.signals(0)) as signals:  # type: ignore[type-var]
        assert await next_signal(signals) is None
        await other.streams.tell_opened(0, GROUP, "late")
        assert await next_signal(signals) == Signal("opened", "p2", GROUP, "late")


async def test_a_relay_tells_the_types(shard: Shard, other: Shard) -> None:
    await shard.streams.start_at(0, 0)
    async with aclosing(shard.streams.signals(0)) as signals:  # type: ignore[type-var]
        assert await next_signal(signals) is None
        await other.relay(1, 2, USER, ROLE)
        await other.relay(1, 2, USER, ROLE)
        await other.relay(3, 3, ROLE)
        assert await next_signal(signals) == Signal("relayed", "p2", types=(USER, ROLE))
        assert await next_signal(signals) == Signal("relayed", "p2", types=(ROLE,))


async def test_what_another_process_settles_extends_or_hands_back_is_told(shard: Shard, other: Shard) -> None:
    await shard.live(4)
    taken = await shard.read(ANN, 4)
    async with aclosing(shard.streams.signals(0)) as signals:  # type: ignore[type-var]
        assert await next_signal(signals) is None
        own = await shard.streams.settle([ack(taken[0], ANN)])
        assert await other.streams.settle([ack(one, ANN) for one in taken[:3]]) == [ALREADY_SETTLED, *own, *own]
        assert await next_signal(signals) == Signal("settled", "p1", GROUP, ANN, positions=(2, 3))
        assert await other.streams.extend([ack(one, ANN) for one in taken[2:]], 1.5) == [ALREADY_SETTLED, DONE]
        assert await next_signal(signals) == Signal("extended", "p1", GROUP, ANN, positions=(4,), seconds=1.5)
        assert await other.hand_back(held(taken[3], ANN), tell=True) == [DONE]
        assert await next_signal(signals) == Signal("returned", "p2", GROUP)
        assert await next_signal(signals) == Signal("settled", "p1", GROUP, ANN, positions=(4,))


async def test_signals_go_on_after_a_lost_connection_and_tell_of_it(shard: Shard, other: Shard) -> None:
    async def listening() -> bool:
        return any(client["cmd"] == "xread" for client in await other.redis.client_list())

    async with aclosing(shard.streams.signals(0)) as signals:  # type: ignore[type-var]
        assert await next_signal(signals) is None
        disturbed = asyncio.create_task(next_signal(signals))
        await eventually(listening)
        await other.redis.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        assert await disturbed is None
        await other.streams.tell_opened(0, GROUP, ANN)
        assert await next_signal(signals) == Signal("opened", "p2", GROUP, ANN)


async def test_signals_go_on_after_the_loss_of_redis(shard: Shard, other: Shard) -> None:
    await other.streams.tell_opened(0, GROUP, "early")
    async with aclosing(shard.streams.signals(0)) as signals:  # type: ignore[type-var]
        assert await next_signal(signals) is None
        await other.redis.flushall()
        await other.streams.tell_opened(0, GROUP, "late")
        assert await next_told(signals) == Signal("opened", "p2", GROUP, "late")


# Processes, and the server itself.


async def test_a_process_lives_until_its_heartbeat_runs_out(shard: Shard, other: Shard) -> None:
    await shard.streams.beat(0, 60)
    await other.streams.beat(0, 0.05)
    assert await shard.streams.living(0, []) == set()

    async def only_p1() -> bool:
        return await shard.streams.living(0, ["p1", "p2", "p3"]) == {"p1"}

    await eventually(only_p1)


async def test_a_fit_server_tells_its_version(shard: Shard) -> None:
    kind, _, version = (await check_redis(shard.redis)).partition(" ")
    assert (await shard.redis.info("server"))[f"{kind}_version"] == version


async def test_a_server_that_may_evict_keys_is_refused(shard: Shard) -> None:
    await shard.redis.config_set("maxmemory-policy", "allkeys-lru")
    try:
        with pytest.raises(UnsafeStore, match="maxmemory-policy=allkeys-lru") as raised:
            await check_redis(shard.redis)
    finally:
        await shard.redis.config_set("maxmemory-policy", "noeviction")
    assert "noeviction" in raised.value.remedy


async def test_a_server_that_is_too_old_is_refused(shard: Shard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "_FLOOR", {"redis": (99, 0), "valkey": (99, 0)})
    with pytest.raises(UnsafeStore, match=r"(redis|valkey) is \d"):
        await check_redis(shard.redis)


# Management.


async def open_filtered(shard: Shard, filter_text: str, *types: str) -> GroupState | None:
    return await shard.streams.open_group(0, GROUP, types, Membership(0, 1), make=True, filter_text=filter_text)


@pytest.fixture
async def user_group(shard: Shard) -> Shard:
    """A group that wants USER alone; 1 and 3 of 4 events are of it."""
    await shard.streams.start_at(0, 0)
    await open_filtered(shard, USER, USER)
    await shard.relay(1, 4, USER, ROLE)
    return shard


async def test_a_group_joins_and_leaves_types_in_one_step(user_group: Shard) -> None:
    shard = user_group
    first, _ = await shard.read(ANN, 9)
    await shard.streams.refilter(0, GROUP, USER, ROLE, 2, [ROLE], [USER])
    await shard.relay(5, 6, USER, ROLE)
    assert await shard.streams.filter_of(0, GROUP) == ROLE
    assert await open_filtered(shard, ROLE, ROLE)
    assert await shard.progress(ROLE, known=2) == Progress(6, 5, 6)
    (received,) = await shard.read(ANN, 9, ROLE)
    assert received.position == 6
    assert await shard.streams.settle([ack(first, ANN)]) == [OUTDATED]
    assert await shard.streams.settle([ack(received, ANN)]) == [DONE]
    assert await shard.progress(ROLE, known=2) == Progress(6, 6, None)


async def test_a_type_that_is_joined_again_begins_at_the_head_of_then(user_group: Shard) -> None:
    shard = user_group
    await shard.streams.refilter(0, GROUP, USER, ROLE, 2, [ROLE], [USER])
    await shard.streams.refilter(0, GROUP, ROLE, USER, 2, [USER], [ROLE])
    assert await open_filtered(shard, USER, USER)
    assert await shard.read(ANN, 9) == []
    assert await shard.progress(known=2) == Progress(4, 4, None)


async def test_who_opens_a_group_by_another_filter_is_told_and_joins_nothing(user_group: Shard) -> None:
    with pytest.raises(Refiltered) as raised:
        await open_filtered(user_group, "*", USER, ROLE)
    assert raised.value.told == USER
    with pytest.raises(Stale):
        await user_group.read(ANN, 9, ROLE)


@pytest.mark.parametrize(("told", "known"), [("*", 2), (USER, 1)])
async def test_a_filter_is_not_changed_by_who_does_not_know_the_present(
    user_group: Shard, told: str, known: int
) -> None:
    with pytest.raises(Stale):
        await user_group.streams.refilter(0, GROUP, told, "role.*", known, [ROLE], [USER])
    assert await user_group.streams.filter_of(0, GROUP) == USER
    assert positions(await user_group.read(ANN, 9)) == [1, 3]


async def test_consumers_are_told_with_what_they_hold(shard: Shard) -> None:
    await shard.live(4, USER, ROLE)
    first, *_ = await shard.read(ANN, 9, USER, ROLE)
    await shard.streams.enroll(0, GROUP, 1, BOB)
    await shard.hand_back(held(first, ANN))
    assert await shard.streams.consumers(0, GROUP, 1, [USER, ROLE]) == [Pending(ANN, 3), Pending(BOB, 0)]


async def test_a_group_that_is_not_there_has_no_consumers_and_no_filter(shard: Shard) -> None:
    await shard.streams.enroll(0, GROUP, 1, ANN)
    assert await shard.streams.consumers(0, GROUP, 1, [USER]) == []
    assert await shard.streams.filter_of(0, GROUP) is None


async def test_other_brokers_are_told_of_a_change(shard: Shard, other: Shard) -> None:
    async with aclosing(other.streams.signals(0)) as signals:  # type: ignore[type-var]
        assert await anext(signals) is None
        await shard.streams.tell_changed(0, GROUP)
        assert await anext(signals) == Signal("changed", "p1", GROUP)


async def test_who_reads_by_another_filter_is_stale_and_what_it_took_is_among_its_holdings(user_group: Shard) -> None:
    shard = user_group
    assert positions(await shard.streams.read(0, GROUP, 1, ANN, [USER], 1, USER)) == [1]
    with pytest.raises(Stale):
        await shard.streams.read(0, GROUP, 1, ANN, [USER], 9, f"{USER} mark")
    assert sorted(holding.position for holding in await shard.holdings(consumer=ANN)) == [1, 3]


async def test_a_filter_may_change_in_what_joins_no_streams(user_group: Shard) -> None:
    shard = user_group
    await shard.streams.refilter(0, GROUP, USER, f"{USER} mark", 2, [], [])
    assert await shard.streams.filter_of(0, GROUP) == f"{USER} mark"
    assert positions(await shard.streams.read(0, GROUP, 1, ANN, [USER], 9, f"{USER} mark")) == [1, 3]

"""What the lines of a group that is fed in turn promise to brokers that are slow."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from eventbroker_server.ports import Bring, Bringing, Entry, InLine, Line, Membership, Stale, Waiting

from tests.contract.test_streams import ANN, GROUP, USER, Shard, ack, held, new_shard, shard

if TYPE_CHECKING:
    from eventbroker_server.ports import GroupState, Received

__all__ = ["new_shard", "shard"]
ALICE, FILTER = Line("acme/User/alice", ""), "*"


@pytest.fixture
async def made(shard: Shard) -> GroupState:
    """A group that is ordered, with nothing fed of three events that are relayed."""
    await shard.streams.start_at(0, 0)
    await shard.relay(1, 3)
    state = await shard.streams.open_group(0, GROUP, (), Membership(0, 1), make=True, filter_text=FILTER, in_turn=True)
    assert state
    return state


async def feed(shard: Shard, state: GroupState, upto: int, *positions: int, ask: bool = False) -> GroupState:
    entries = [InLine(Entry(at, USER, "acme", b"event %d" % at), ALICE, ask) for at in positions]
    return await shard.streams.feed_lines(0, GROUP, state, upto, entries, FILTER)


async def bring(shard: Shard, position: int, failed: int | None, since: float | None = None) -> None:
    """What was decided of an event that was released at some moment; of the present release, if it is not said."""
    if since is None:
        since = (await shard.streams.released(0, GROUP, 10))[position]
    go = Bringing(position, since, Bring.GO, failed, "acme", b"event %d" % position)
    await shard.streams.bring(0, GROUP, 1, [go], FILTER)


async def read(shard: Shard) -> list[Received]:
    return await shard.streams.read(0, GROUP, 1, ANN, (), 10)


async def fail(shard: Shard, received: Received) -> None:
    moved, _ = await shard.streams.set_aside(0, GROUP, 1, [held(received, ANN)], note="", spare_extended=False)
    assert moved
    aside = held(received, shard.streams.aside)
    await shard.streams.forget(0, GROUP, 1, [aside])


async def test_what_was_decided_before_another_attempt_is_not_brought_for_it(shard: Shard, made: GroupState) -> None:
    """A slow broker has asked PostgreSQL of event 1; another brings it, it fails, and its next attempt is released."""
    await feed(shard, made, 1, 1, ask=True)
    since = (await shard.streams.released(0, GROUP, 10))[1]
    await bring(shard, 1, None)
    (first,) = await read(shard)
    await fail(shard, first)
    await shard.streams.line_up(0, GROUP, 1, [(Waiting(1, 1), ALICE, None)])
    await bring(shard, 1, None, since)  # the slow one: as if there were no row
    await bring(shard, 1, 1)
    (again,) = await read(shard)
    await shard.streams.settle([ack(again, ANN)])
    assert await shard.streams.retried(0, GROUP) == [Waiting(1, 1)]  # or else its row is never deleted


async def test_what_is_settled_beyond_the_oldest_is_told(shard: Shard, made: GroupState) -> None:
    """Event 1 is out, 2 is settled, 3 stands behind 1."""
    bob = InLine(Entry(2, USER, "acme", b"event 2"), Line("acme/User/bob", ""), False)
    state = await feed(shard, made, 1, 1)
    state = await shard.streams.feed_lines(0, GROUP, state, 2, [bob], FILTER)
    _, second = await read(shard)
    await shard.streams.settle([ack(second, ANN)])
    assert (await shard.streams.progress(0, GROUP, 1, (), 1, FILTER, 10)).beyond() == [(2, 3)]
    await feed(shard, state, 3, 3)
    told = await shard.streams.progress(0, GROUP, 1, (), 1, FILTER, 10)
    assert (told.through, told.but, told.beyond()) == (3, (1, 3), [(2, 3)])
    assert (await shard.streams.progress(0, GROUP, 1, (), 1, FILTER, 1)).beyond() == []


async def test_an_event_that_is_not_fed_yet_is_not_lined_up(shard: Shard, made: GroupState) -> None:
    """A page of history was read; then a seek's dead letter is redriven and due; then the page is fed."""
    assert await shard.streams.line_up(0, GROUP, 1, [(Waiting(1, 0), ALICE, None)]) == [1]
    await feed(shard, made, 2, 1, 2)
    assert await shard.streams.line_up(0, GROUP, 1, [(Waiting(1, 0), ALICE, None)]) == []
    (first,) = await read(shard)
    await shard.streams.settle([ack(first, ANN)])
    assert await shard.streams.retried(0, GROUP) == [Waiting(1, 0)]  # one delivery did for both
    assert list(await shard.streams.released(0, GROUP, 10)) == [2]


async def test_an_older_filter_decides_nothing(shard: Shard, made: GroupState) -> None:
    await feed(shard, made, 1, 1, ask=True)
    ((position, since),) = (await shard.streams.released(0, GROUP, 10)).items()
    with pytest.raises(Stale):
        await shard.streams.bring(0, GROUP, 1, [Bringing(position, since, Bring.OVER)], "user.*")
    assert list(await shard.streams.released(0, GROUP, 10)) == [1]

"""What the outbox promises, on true PostgreSQL servers, and that SQL has the rules of the domain."""

from __future__ import annotations

import asyncio
import zlib
from functools import partial
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest
from eventbroker_server.broker.outbox import OutboxDrain
from eventbroker_server.domain.event import DataForm, Metadata, StoredEvent, shard_of
from eventbroker_server.domain.names import is_event_type, is_id, is_name
from eventbroker_server.postgres.event_log import PostgresEventLog
from eventbroker_server.postgres.migrate import migrate
from eventbroker_server.postgres.outbox import PostgresOutbox
from eventbroker_server.postgres.pool import open_pool

from tests.domain_events import domain_event
from tests.sql import publish, service
from tests.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from eventbroker_server.postgres.pool import Pool

    from tests.conftest import Stores

SHARDS = 3


@pytest.fixture
async def pool(stores: Stores) -> AsyncIterator[Pool]:
    async with open_pool(stores.settings(), stores.postgres) as pool:
        await migrate(pool, SHARDS)
        yield pool


@pytest.fixture
async def sql(stores: Stores, pool: Pool) -> AsyncIterator[asyncpg.Connection]:
    async with service(stores) as connection:
        yield connection


@pytest.fixture
def outbox(stores: Stores, pool: Pool) -> PostgresOutbox:
    return PostgresOutbox(pool, stores.postgres, 5.0)


@pytest.fixture
def log(pool: Pool) -> PostgresEventLog:
    return PostgresEventLog(pool)


class Drained:
    """An outbox that is drained while the block runs; what was told to be relayed."""

    def __init__(self, outbox: PostgresOutbox) -> None:
        self.relayed: list[tuple[int, StoredEvent]] = []
        self._drain = OutboxDrain(outbox, [partial(self._relay, shard) for shard in range(SHARDS)], 0.02)

    def _relay(self, shard: int, stored: list[StoredEvent]) -> None:
        self.relayed += [(shard, each) for each in stored]

    async def __aenter__(self) -> Drained:
        self._task = asyncio.create_task(self._drain.run())
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._drain.close()
        await self._task


async def emptied(sql: asyncpg.Connection) -> None:
    async def empty() -> bool:
        return not await sql.fetchval("SELECT count(*) FROM eventbroker.outbox")

    await eventually(empty)


async def stored(log: PostgresEventLog, tenant: str = "acme") -> list[StoredEvent]:
    return await log.read(shard_of(tenant, SHARDS), 0, 1 << 40)


CUT_OFF = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE application_name = 'eventbroker outbox' AND datname = current_database()
"""
TENANTS = ["acme", "a", "_", "globex", "x" * 128, "0.9-_Z"]


async def test_sql_finds_the_shard_of_each_tenant(sql: asyncpg.Connection) -> None:
    for tenant in TENANTS:
        assert await sql.fetchval("SELECT eventbroker.shard_of($1)", tenant) == zlib.crc32(tenant.encode()) % SHARDS


TEXTS = ["", "a", "A.b_c-9", "a b", "ä", "a.b.c.d.e.f.g.h", "a.b.c.d.e.f.g.h.i", "a..b", ".a", "a.", "user.*", "a\n"]
TEXTS += ["x" * 128, "x" * 129, "x" * 256, "🙂" * 256, "x" * 257, "a\x1f", "a\x7f", "a\x9f", "a\xa0", "\u2028", "\x01"]


async def test_sql_has_the_rules_of_names(sql: asyncpg.Connection) -> None:
    query = "SELECT eventbroker.is_name($1), eventbroker.is_event_type($1), eventbroker.is_id($1)"
    for text in TEXTS:
        assert tuple(await sql.fetchrow(query, text)) == (is_name(text), is_event_type(text), is_id(text)), text


async def test_what_is_published_is_taken_as_it_was_told(sql: asyncpg.Connection, outbox: PostgresOutbox) -> None:
    event = domain_event(
        event_id="é-🙂",
        aggregate_id="u 1",
        event_version="v2",
        user_id="ü",
        session_id="s",
        request_id="r",
        correlation_id="c",
        content='{"é": "🙂"}'.encode(),
        metadata=Metadata(
            "web",
            "é1",
            7,
            ("a", "ü"),
            (("k", "línea\n"), ("l", "")),
        ),
    )
    said = event._asdict() | event.metadata._asdict() | {"data": event.content.decode(), "occurred_at": event.timestamp}
    said["attributes"] = '{"k": "línea\\n", "l": ""}'
    for field in ("form", "content_type", "content", "metadata", "wire", "timestamp"):
        del said[field]
    assert await publish(sql, **said) == "é-🙂"
    await publish(sql, event_id="binary", content=b"\0\xff", content_type="application/x")
    await publish(sql, event_id="empty", content=b"", content_type="application/x")
    await publish(sql, event_id="message", content=b"\x0a", type_url="type.googleapis.com/x.Y")
    (shard,) = await outbox.shards()
    async with outbox.taking(shard, 10) as taken:
        first, *others = taken.events()
    assert first == event
    assert [event[11:14] for event in others] == [
        (DataForm.BINARY, "application/x", b"\0\xff"),
        (DataForm.BINARY, "application/x", b""),
        (DataForm.MESSAGE, "type.googleapis.com/x.Y", b"\x0a"),
    ]
    assert {event.metadata for event in others} == {Metadata()}


async def test_rows_are_taken_in_order_and_by_one_at_a_time(sql: asyncpg.Connection, outbox: PostgresOutbox) -> None:
    published = [await publish(sql) for _ in range(5)]
    (shard,) = await outbox.shards()
    async with outbox.taking(shard, 3) as taken:
        assert [event.event_id for event in taken.events()] == published[:3]
        async with outbox.taking(shard, 3) as other:
            assert other.numbers == []
        await taken.forget(taken.numbers[:2])
    async with outbox.taking(shard, 3) as taken:
        assert [event.event_id for event in taken.events()] == published[2:]


async def test_no_more_than_a_few_mebibytes_are_taken_at_once(sql: asyncpg.Connection, outbox: PostgresOutbox) -> None:
    for _ in range(10):
        await publish(sql, content=bytes(1_000_000), content_type="x")
    (shard,) = await outbox.shards()
    async with outbox.taking(shard, 1000) as taken:
        assert len(taken.events()) == 5


async def test_what_is_done_with_rows_is_undone_by_an_exception(
    sql: asyncpg.Connection, outbox: PostgresOutbox
) -> None:
    await publish(sql)
    (shard,) = await outbox.shards()

    async def forget_and_fail() -> None:
        async with outbox.taking(shard, 1) as taken:
            await taken.forget(taken.numbers)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await forget_and_fail()
    assert await outbox.shards() == [shard]


async def test_published_events_are_numbered_in_their_aggregates_and_relayed(
    sql: asyncpg.Connection, outbox: PostgresOutbox, log: PostgresEventLog
) -> None:
    published = [await publish(sql, aggregate_id=f"u{number % 2}") for number in range(6)]
    async with Drained(outbox) as drained:
        await emptied(sql)
    events = await stored(log)
    assert [each.event.event_id for each in events] == published
    assert [each.aggregate_version for each in events] == [1, 1, 2, 2, 3, 3]
    assert drained.relayed == [(shard_of("acme", SHARDS), each) for each in events]


async def test_events_of_all_shards_are_drained(
    sql: asyncpg.Connection, outbox: PostgresOutbox, log: PostgresEventLog
) -> None:
    tenants = ["acme", "globex", "b", "c", "d"]
    assert {shard_of(tenant, SHARDS) for tenant in tenants} == set(range(SHARDS))
    async with Drained(outbox):
        for tenant in tenants:
            await publish(sql, tenant_id=tenant)
        await emptied(sql)
    for tenant in tenants:
        assert tenant in {each.event.tenant_id for each in await stored(log, tenant)}


async def test_an_id_for_the_same_content_is_stored_once_and_for_another_put_aside(
    sql: asyncpg.Connection, outbox: PostgresOutbox, log: PostgresEventLog
) -> None:
    same: dict[str, Any] = {"event_id": "e1", "occurred_at": domain_event().timestamp}
    for data in ('{"a":1}', '{ "a": 1 }', '{"a": 2}'):
        await publish(sql, data=data, **same)
    last = await publish(sql)
    async with Drained(outbox):
        await emptied(sql)
        await publish(sql, data='{"a": 1}', **same)  # also once it is stored
        await emptied(sql)
    assert [each.event.event_id for each in await stored(log)] == ["e1", last]
    (refused,) = await sql.fetch("SELECT * FROM eventbroker.refused_events")
    assert refused["event_id"] == "e1"
    assert refused["content"] == b'{"a": 2}'
    assert "event id is in use" in refused["reason"]


async def test_a_row_that_cannot_be_stored_is_put_aside_and_stops_no_other(
    sql: asyncpg.Connection, outbox: PostgresOutbox, log: PostgresEventLog
) -> None:
    published = [await publish(sql) for _ in range(20)]
    await sql.execute("UPDATE eventbroker.outbox SET user_id = E'a\\x1fb' WHERE event_id = $1", published[7])
    await sql.execute("UPDATE eventbroker.outbox SET form = 9 WHERE event_id = $1", published[11])
    async with Drained(outbox):
        await emptied(sql)
    assert [each.event.event_id for each in await stored(log)] == published[:7] + published[8:11] + published[12:]
    refused = await sql.fetch("SELECT event_id, reason FROM eventbroker.refused_events ORDER BY number")
    assert [row["event_id"] for row in refused] == [published[7], published[11]]
    assert refused[0]["reason"].startswith("ValueError")


async def test_a_commit_that_comes_late_is_not_passed_over(
    stores: Stores, sql: asyncpg.Connection, outbox: PostgresOutbox, log: PostgresEventLog
) -> None:
    async with Drained(outbox), service(stores) as slow:
        async with slow.transaction():
            late = await publish(slow)
            later = await publish(sql)  # has the higher number
            await emptied(sql)
            assert [each.event.event_id for each in await stored(log)] == [later]
        await emptied(sql)
    assert [each.event.event_id for each in await stored(log)] == [later, late]


async def test_a_commit_is_told_at_once_also_after_the_connection_was_lost(
    sql: asyncpg.Connection, outbox: PostgresOutbox
) -> None:
    told: list[bool] = []
    listening = asyncio.create_task(outbox.listen(lambda: told.append(True)))
    try:
        for _ in range(2):
            await eventually(lambda: told)  # it listens
            told.clear()
            await publish(sql)
            await eventually(lambda: told)
            told.clear()
            assert await sql.fetchval(CUT_OFF)
    finally:
        listening.cancel()

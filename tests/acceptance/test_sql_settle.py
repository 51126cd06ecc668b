"""A consumer that settles by SQL: what it does in the same transaction is done once for each event."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest
from eventbroker.v1.dead_letter_service_pb2 import DeadLetterFilter, RedriveDeadLettersRequest
from eventbroker.v1.group_service_pb2 import LogPoint, SeekGroupRequest
from eventbroker.v1.subscriber_service_pb2 import NACK_ACTION_DEAD_LETTER, START_POINT_EARLIEST, START_POINT_LATEST
from eventbroker_server.domain.event import shard_of
from eventbroker_server.postgres.pool import open_pool
from eventbroker_server.postgres.settled_in_sql import PostgresSettledInSql

from tests.client import DONE, TIMEOUT, ack_ids, event, publish
from tests.sql import service, settle
from tests.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from eventbroker.v1.subscriber_service_pb2 import Delivery

    from tests.client import Client
    from tests.conftest import Stores

GROUP = ("acme", "billing")


class Consumer:
    """Counts each event in a table of its own, in the transaction that settles it."""

    def __init__(self, connection: asyncpg.Connection) -> None:
        self.connection = connection

    async def handle(self, delivery: Delivery) -> bool:
        """Whether this was the first time."""
        async with self.connection.transaction():
            first = await settle(self.connection, *GROUP, delivery.event.position)
            if first:
                await self.connection.execute("INSERT INTO effects VALUES ($1)", delivery.event.event_id)
            return first

    async def effects(self) -> list[str]:
        return [row[0] for row in await self.connection.fetch("SELECT event_id FROM effects ORDER BY event_id")]


@pytest.fixture
async def sql(broker: Client, stores: Stores) -> AsyncIterator[asyncpg.Connection]:
    async with service(stores) as connection:
        yield connection


@pytest.fixture
async def consumer(broker: Client, sql: asyncpg.Connection) -> Consumer:
    await broker.create_group("billing", "*", tenant_id="acme")
    await sql.execute("CREATE TABLE effects (event_id text NOT NULL)")
    return Consumer(sql)


async def seek(broker: Client, edge: Any) -> None:
    request = SeekGroupRequest(tenant_id="acme", name="billing", to=LogPoint(edge=edge))
    await broker.groups.SeekGroup(request, timeout=TIMEOUT)


async def checkpoint_at(sql: asyncpg.Connection, position: int) -> None:
    query = "SELECT checkpoint >= $1 FROM eventbroker.group_lag WHERE group_name = 'billing'"
    await eventually(lambda: sql.fetchval(query, position))


async def test_an_event_that_comes_again_as_its_ack_was_lost_has_its_effect_once(
    broker: Client, consumer: Consumer
) -> None:
    published = await publish(broker, 20)
    async with await broker.subscribe("billing", tenant_id="acme") as stream:
        handled = [await consumer.handle(delivery) for delivery in await stream.take(20)]
        assert handled == [True] * 20
    # It is gone before it acked any.
    async with await broker.subscribe("billing", tenant_id="acme") as stream:
        again = await stream.take(20)
        assert [await consumer.handle(delivery) for delivery in again] == [False] * 20
        assert await broker.ack(ack_ids(again)) == [DONE] * 20
    assert await consumer.effects() == sorted(published)


async def test_an_effect_that_is_rolled_back_is_made_when_the_event_comes_again(
    broker: Client, consumer: Consumer
) -> None:
    (published,) = await publish(broker)
    async with await broker.subscribe("billing", tenant_id="acme") as stream:
        (delivery,) = await stream.take(1)
        transaction = consumer.connection.transaction()
        await transaction.start()
        assert await consumer.handle(delivery)
        await transaction.rollback()
        await broker.nack([delivery.ack_id], seconds=0)
        (delivery,) = await stream.take(1)
        assert delivery.attempt == 2
        assert await consumer.handle(delivery)
        assert not await consumer.handle(delivery)
    assert await consumer.effects() == [published]


async def test_of_two_that_handle_an_event_at_once_the_second_waits_for_the_first(
    broker: Client, consumer: Consumer, stores: Stores
) -> None:
    await publish(broker)
    async with await broker.subscribe("billing", tenant_id="acme") as stream, service(stores) as connection:
        (delivery,) = await stream.take(1)
        for commits in (False, True):
            transaction = connection.transaction()
            await transaction.start()
            assert await settle(connection, *GROUP, delivery.event.position)
            second = asyncio.create_task(consumer.handle(delivery))
            await eventually(lambda: connection.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"))
            assert not second.done()
            if commits:
                await transaction.commit()
                assert not await second
            else:
                await transaction.rollback()
                assert await second
                await consumer.connection.execute("DELETE FROM eventbroker.settled_in_sql")


async def test_a_transaction_that_cannot_see_that_an_event_is_settled_is_told_to_try_again(
    broker: Client, consumer: Consumer, stores: Stores
) -> None:
    await publish(broker)
    async with await broker.subscribe("billing", tenant_id="acme") as stream, service(stores) as connection:
        (delivery,) = await stream.take(1)
        async with connection.transaction(isolation="repeatable_read"):
            await connection.fetch("SELECT FROM effects")  # from here on it sees nothing new
            assert await consumer.handle(delivery)
            with pytest.raises(asyncpg.SerializationError):
                async with connection.transaction():
                    await settle(connection, *GROUP, delivery.event.position)
        assert not await settle(connection, *GROUP, delivery.event.position)


async def test_after_a_seek_back_each_event_has_its_effect_once_more(broker: Client, consumer: Consumer) -> None:
    published = await publish(broker, 5)
    for times in (1, 2, 3):
        for last in (False, True):  # the acks of the first round are lost
            async with await broker.subscribe("billing", tenant_id="acme") as stream:
                deliveries = await stream.take(5)
                assert [await consumer.handle(delivery) for delivery in deliveries] == [not last] * 5
                if last:
                    await broker.ack(ack_ids(deliveries))
        assert await consumer.effects() == sorted(published * times)
        await seek(broker, START_POINT_EARLIEST)


async def test_an_event_that_the_group_has_done_with_has_no_effect_any_more(
    broker: Client, consumer: Consumer, stores: Stores
) -> None:
    await publish(broker, 3)
    async with await broker.subscribe("billing", tenant_id="acme") as stream:
        settled, acked, skipped = await stream.take(3)
        assert await consumer.handle(settled)
        assert await broker.ack([settled.ack_id, acked.ack_id]) == [DONE, DONE]
        await checkpoint_at(consumer.connection, 2)
        # A consumer that was slow with them, after the purge.
        await consumer.connection.execute("UPDATE eventbroker.settled_in_sql SET settled_at = now() - interval '1 h'")
        async with open_pool(stores.settings(), stores.postgres) as pool:
            assert await PostgresSettledInSql(pool).purge() == 1
        assert not await consumer.handle(settled)
        assert not await consumer.handle(acked)
        await seek(broker, START_POINT_LATEST)
        assert not await consumer.handle(skipped)


async def test_what_is_purged_is_only_what_tells_nothing_any_more(
    broker: Client, consumer: Consumer, stores: Stores
) -> None:
    sql = consumer.connection
    await publish(broker, 4)
    async with (
        open_pool(stores.settings(), stores.postgres) as pool,
        await broker.subscribe("billing", tenant_id="acme") as stream,
    ):
        purge = PostgresSettledInSql(pool).purge
        deliveries = await stream.take(4)
        for delivery in deliveries:
            assert await consumer.handle(delivery)
        acked, dead, waiting, _ = deliveries
        await broker.ack([acked.ack_id])
        await broker.nack([dead.ack_id], NACK_ACTION_DEAD_LETTER, reason="malformed")
        await broker.nack([waiting.ack_id], seconds=3600)
        await checkpoint_at(sql, 3)
        assert await purge() == 0  # not yet
        await sql.execute("UPDATE eventbroker.settled_in_sql SET settled_at = now() - interval '1 h'")
        assert await purge() == 1
        left = await sql.fetch("SELECT position FROM eventbroker.settled_in_sql ORDER BY position")
        assert [row[0] for row in left] == [2, 3, 4]
        await seek(broker, START_POINT_EARLIEST)
        assert await purge() == 3


async def test_a_dead_letter_that_is_redriven_has_its_effect_once(broker: Client, consumer: Consumer) -> None:
    done, undone = await publish(broker, 2)
    async with await broker.subscribe("billing", tenant_id="acme") as stream:
        deliveries = await stream.take(2)
        assert await consumer.handle(deliveries[0])
        await broker.nack(ack_ids(deliveries), NACK_ACTION_DEAD_LETTER, reason="malformed")
        await checkpoint_at(consumer.connection, 2)
        await broker.dead_letters.RedriveDeadLetters(
            RedriveDeadLettersRequest(tenant_id="acme", group="billing", filter=DeadLetterFilter(all=True)),
            timeout=TIMEOUT,
        )
        handled = {delivery.event.event_id: await consumer.handle(delivery) for delivery in await stream.take(2)}
        assert handled == {done: False, undone: True}


async def test_what_cannot_be_settled_is_told_by_its_sqlstate(
    broker: Client, consumer: Consumer, sql: asyncpg.Connection
) -> None:
    await publish(broker)
    await broker.publish(event(tenant_id="globex"))
    for arguments, sqlstate in [
        (("acme", "billing", None), "EB001"),
        (("acme", "nobody", 1), "EB002"),
        (("acme", None, 1), "EB002"),
        (("", "billing", 1), "EB002"),
        (("acme", "billing", 1, 7), "EB002"),
        (("acme", "billing", 3), "EB003"),
        (("acme", "billing", 0), "EB003"),
        (("acme", "billing", 2), "EB003"),  # another tenant's
    ]:
        with pytest.raises(asyncpg.PostgresError) as caught:
            await settle(sql, *arguments)
        assert caught.value.sqlstate == sqlstate, arguments
        assert caught.value.hint
    assert await sql.fetchval("SELECT count(*) FROM eventbroker.settled_in_sql") == 0


async def test_a_group_of_all_tenants_names_the_shard_where_there_are_several(
    make_broker: Callable[..., Awaitable[Client]], stores: Stores
) -> None:
    broker = await make_broker(shards=3)
    await broker.create_group("audit", "*")
    tenants = ["acme", "globex", "c", "d"]
    for tenant in tenants:
        await broker.publish(event(tenant_id=tenant))
    async with await broker.subscribe("audit") as stream, service(stores) as sql:
        deliveries = await stream.take(len(tenants))
        with pytest.raises(asyncpg.PostgresError) as caught:
            await settle(sql, "", "audit", 1)
        assert caught.value.sqlstate == "EB001"
        handled = [
            await settle(sql, tenant, "audit", delivery.event.position, shard_of(delivery.event.tenant_id, 3))
            for tenant in ("", None, "*")
            for delivery in deliveries
        ]
        assert handled == [True] * 4 + [False] * 8

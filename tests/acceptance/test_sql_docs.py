"""The SQL of docs/sql.md runs as it stands there, and finds what it is to find."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest
from eventbroker.v1.subscriber_service_pb2 import NACK_ACTION_DEAD_LETTER

from tests.client import ack_ids, event
from tests.conftest import ROOT
from tests.sql import publish, service
from tests.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.client import Client
    from tests.conftest import Stores

TABLES = "CREATE TABLE users (id text PRIMARY KEY, email text); CREATE TABLE invoices (user_id text)"
ROLES = ("eventbroker_reader", "eventbroker_service")  # of the whole server: a page makes them, so a test undoes them


def blocks(section: str) -> list[str]:
    """The SQL of a section."""
    text = (ROOT / "docs" / "sql.md").read_text()
    (found,) = re.findall(rf"^## {section}\n(.*?)(?=^## |\Z)", text, flags=re.MULTILINE | re.DOTALL)
    sql: list[str] = re.findall(r"^```sql\n(.*?)^```$", found, flags=re.MULTILINE | re.DOTALL)
    assert sql
    return sql


@pytest.fixture
async def sql(broker: Client, stores: Stores) -> AsyncIterator[asyncpg.Connection]:
    """A database with two groups, and an event at position 1 that one of them has given up, of which the event at
    position 2 tells."""
    await broker.create_group("billing", "*", tenant_id="acme")
    await broker.create_group("audit", "*")
    await broker.publish(event(aggregate_id="u1"))
    async with await broker.subscribe("billing", tenant_id="acme") as stream:
        await broker.nack(ack_ids(await stream.take(1)), NACK_ACTION_DEAD_LETTER, reason="malformed")
    async with service(stores) as admin:
        await admin.execute(TABLES)
        await eventually(lambda: admin.fetchval("SELECT position = 2 FROM eventbroker.shard_head"))
        try:
            async with service(stores) as connection:
                yield connection
        finally:
            for role in await admin.fetch("SELECT rolname FROM pg_roles WHERE rolname = ANY ($1)", ROLES):
                await admin.execute(f"DROP OWNED BY {role[0]}; DROP ROLE {role[0]}")


async def stored(sql: asyncpg.Connection) -> list[str]:
    query = "SELECT event_data ->> 'email' FROM eventbroker.event_store WHERE position > 2 ORDER BY position"
    return [row[0] for row in await sql.fetch(query)]


async def test_the_page_on_publishing(sql: asyncpg.Connection) -> None:
    publishing, refused = blocks("Publish")
    await sql.execute(publishing)
    assert await eventually(lambda: stored(sql)) == ["a@example.com"]
    await publish(sql, event_id="e1")
    await publish(sql, event_id="e1", data="2")
    await eventually(lambda: sql.fetchval("SELECT count(*) FROM eventbroker.refused_events"))
    await sql.execute("UPDATE eventbroker.outbox_refused SET refused_at = now() - interval '31 days'")
    await sql.execute(refused)
    assert not await sql.fetchval("SELECT count(*) FROM eventbroker.outbox_refused")


async def test_the_page_on_settling(sql: asyncpg.Connection) -> None:
    one, of_all = blocks("Settle")
    for _ in range(2):
        await sql.execute(one)
    assert await sql.fetchval("SELECT count(*) FROM invoices") == 1
    assert [await sql.fetchval(of_all) for _ in range(2)] == [True, False]


async def test_the_page_on_reading_as_the_role_that_it_makes(sql: asyncpg.Connection) -> None:
    role, *queries = blocks("Read")
    await sql.execute(role)
    await sql.execute("SET ROLE eventbroker_reader")
    found: list[list[Any]] = [
        await sql.fetch(query) for queries_of_block in queries for query in queries_of_block.split(";\n") if query
    ]
    lag, groups, dead, outbox, history = found
    assert {(row["group_name"], row["head"]) for row in lag} == {("billing", 2), ("audit", 2)}
    assert [(row["group_name"], row["ordering"], row["paused"]) for row in groups] == [
        ("audit", "none", False),
        ("billing", "none", False),
    ]
    assert [(row["group_name"], row["aggregate_id"], row["reason"]) for row in dead] == [("billing", "u1", "malformed")]
    assert [tuple(row) for row in outbox] == [(0, 0, None, 0)]
    assert [row["aggregate_version"] for row in history] == [1]
    for table in await sql.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'eventbroker'"):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await sql.execute(f"SELECT FROM eventbroker.{table[0]}")
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await publish(sql)


@pytest.mark.parametrize(
    "change",
    ["UPDATE eventbroker.events SET user_id = 'u2'", "DELETE FROM eventbroker.events", "TRUNCATE eventbroker.events"],
)
async def test_the_log_is_not_changed_in_passing(sql: asyncpg.Connection, change: str) -> None:
    with pytest.raises(asyncpg.PostgresError, match=r"refused: eventbroker\.events only grows") as refused:
        await sql.execute(change)
    assert refused.value.sqlstate == "EB004"


async def test_the_page_on_erasing(broker: Client, sql: asyncpg.Connection) -> None:
    told = event(aggregate_id="u1", user_id="u1")
    await broker.publish(told, other := event(aggregate_id="u2"))
    (erase,) = blocks("Erase")
    await sql.execute(erase)
    stored = await broker.get_event(told.event_id)
    assert (stored.json, stored.user_id, stored.aggregate_version) == ('{"erased": true}', "", 2)
    assert (await broker.get_event(other.event_id)).json == other.json
    with pytest.raises(asyncpg.PostgresError, match="only grows"):
        await sql.execute("DELETE FROM eventbroker.events")


async def test_the_page_on_grants(sql: asyncpg.Connection) -> None:
    (grants,) = blocks("Grants")
    await sql.execute(grants)
    await sql.execute(
        "GRANT SELECT ON invoices TO eventbroker_service; GRANT INSERT ON users, invoices TO eventbroker_service"
    )
    await sql.execute("SET ROLE eventbroker_service")
    await sql.execute(blocks("Publish")[0])
    for block in blocks("Settle"):
        await sql.execute(block)
    assert await sql.fetchval("SELECT count(*) FROM invoices") == 1


async def test_lag_and_what_is_behind_are_those_of_each_group(broker: Client, sql: asyncpg.Connection) -> None:
    query = """
        SELECT checkpoint, lag, waiting_retries, dead_letters, oldest_unsettled_at
        FROM eventbroker.group_lag
        WHERE group_name = $1
    """
    await broker.publish(event(), event())
    times = [row[0] for row in await sql.fetch("SELECT created_at FROM eventbroker.event_store ORDER BY position")]
    assert tuple(await sql.fetchrow(query, "audit")) == (0, 4, 0, 0, times[0])
    async with await broker.subscribe("billing", tenant_id="acme") as stream:
        retried, acked = ack_ids(await stream.take(2))
        await broker.nack([retried], seconds=3600)
        await broker.ack([acked])
        there = "SELECT checkpoint = 4 FROM eventbroker.group_lag WHERE group_name = 'billing'"
        await eventually(lambda: sql.fetchval(there))
    assert tuple(await sql.fetchrow(query, "billing")) == (4, 0, 1, 1, times[2])

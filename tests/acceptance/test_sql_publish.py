"""Events that a service publishes by SQL, in a transaction of its own."""

from __future__ import annotations

import json
import uuid
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest
from eventbroker.v1.subscriber_service_pb2 import START_POINT_EARLIEST
from eventbroker_server.domain.names import ID_RULE, NAME_RULE, TYPE_RULE

from tests.client import DUPLICATE, event, ids
from tests.sql import publish, service
from tests.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from tests.client import Client
    from tests.conftest import Stores

MEBI = 1 << 20


@pytest.fixture
async def sql(broker: Client, stores: Stores) -> AsyncIterator[asyncpg.Connection]:
    async with service(stores) as connection:
        yield connection


async def test_what_is_committed_is_delivered_in_order_and_what_is_rolled_back_never(
    broker: Client, sql: asyncpg.Connection
) -> None:
    committed = []
    async with await broker.subscribe("billing", "user.created", "user.renamed") as stream:
        await sql.execute("CREATE TABLE users (id text PRIMARY KEY)")
        for number in range(6):
            transaction = sql.transaction()
            await transaction.start()
            await sql.execute("INSERT INTO users VALUES ($1)", f"u{number}")
            both = [await publish(sql, event_type=f"user.{what}", source="users") for what in ("created", "renamed")]
            if number % 2:
                await transaction.rollback()
            else:
                await transaction.commit()
                committed += both
        events = await stream.take_and_ack(len(committed))
        assert sorted(ids(events), key=committed.index) == committed
        assert [each.position for each in events] == sorted(each.position for each in events)
        assert {each.metadata.source for each in events} == {"users"}
        await stream.nothing_but_heartbeats(1)
    stored = await sql.fetch("SELECT event_id FROM eventbroker.event_store ORDER BY position")
    assert [row["event_id"] for row in stored] == committed


async def test_an_event_published_by_sql_is_as_one_published_by_grpc(broker: Client, sql: asyncpg.Connection) -> None:
    text = '{"emoji": "🙂", "ключ": [1.50, "línea"]}'
    said = {
        "event_id": "é-1",
        "aggregate_id": "ü 1",
        "event_version": "v2",
        "user_id": "u",
        "session_id": "s",
        "request_id": "r",
        "correlation_id": "c",
    }
    metadata = {"source": "web", "caused_by": "e0", "entity_version": 3, "tags": ["b", "a"], "attributes": {"k": "ü\n"}}
    moment = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
    attributes = {"attributes": json.dumps(metadata["attributes"])}
    await publish(sql, data=text, occurred_at=moment, **said | metadata | attributes)
    async with await broker.subscribe("billing", "*", start=START_POINT_EARLIEST) as stream:
        (delivered,) = await stream.take_and_ack(1)
    ours = event(**said, metadata=metadata, json=delivered.json)
    assert json.loads(delivered.json) == json.loads(text)
    (again,) = await broker.publish(ours)
    assert (again.outcome, again.position, again.aggregate_version) == (DUPLICATE, delivered.position, 1)


async def test_data_of_a_mebibyte_and_of_other_forms_is_delivered_byte_for_byte(
    broker: Client, sql: asyncpg.Connection
) -> None:
    big = bytes(range(256)) * (MEBI // 256 - 1)
    await publish(sql, content=big, content_type="application/octet-stream", event_id="big")
    await publish(sql, content=b"\x0a\x01u", type_url="type.googleapis.com/eventbroker.events.v1.UserCreated")
    await publish(sql, data="null")
    async with await broker.subscribe("billing", "*", start=START_POINT_EARLIEST) as stream:
        binary, message, null = await stream.take_and_ack(3)
    assert binary.binary.content == big
    assert message.message.value == b"\x0a\x01u"
    assert message.message.type_url.endswith("UserCreated")
    assert null.json == "null"


async def test_one_broker_delivers_what_another_took_from_the_outbox_in_several_shards(
    make_broker: Callable[..., Awaitable[Client]], stores: Stores
) -> None:
    first, second = await make_broker(shards=3), await make_broker()
    async with service(stores) as sql, await second.subscribe("audit", "*") as stream:
        published = [await publish(sql, tenant_id=f"t{number}") for number in range(12)]
        assert sorted(ids(await stream.take_and_ack(12))) == sorted(published)
        assert (await first.get_event(published[0], "t0")).tenant_id == "t0"


async def test_a_broker_is_told_of_a_commit_and_need_not_look(
    make_broker: Callable[..., Awaitable[Client]], stores: Stores
) -> None:
    broker = await make_broker(sweep_interval=3600)
    async with service(stores) as sql, await broker.subscribe("billing", "*") as stream:
        for _ in range(3):
            published = await publish(sql)
            assert ids(await stream.take_and_ack(1)) == [published]


async def test_an_event_that_is_refused_can_be_looked_at_and_stops_no_other(
    broker: Client, sql: asyncpg.Connection
) -> None:
    await broker.publish(event(event_id="e1"))
    await publish(sql, event_id="e1")
    last = await publish(sql)
    await eventually(lambda: sql.fetchval("SELECT count(*) FROM eventbroker.event_store WHERE event_id = $1", last))
    refused = await sql.fetch("SELECT event_id, reason FROM eventbroker.refused_events")
    assert [row["event_id"] for row in refused] == ["e1"]


# By argument: what breaks a rule, and the rule.
LONG, CONTROL = "x" * 257, ("a\nb", "a\x1f", "\x7f", "a\x85")
NAMES = ("x" * 129, "a b", "ü", "a/b", "a\n")
TYPES = ("User.created", "user..created", ".user", "user.", "a.b.c.d.e.f.g.h.i", "x" * 129, "user.*", "*", "a\n")
IDS = ("user_id", "session_id", "request_id", "correlation_id", "source", "caused_by")
BAD: list[tuple[str, Any, str]] = [
    *(("tenant_id", bad, NAME_RULE) for bad in ("", *NAMES)),
    ("tenant_id", "_broker", "is reserved"),
    *(("event_type", bad, TYPE_RULE) for bad in ("", *TYPES)),
    *(("aggregate_type", bad, NAME_RULE) for bad in ("", *NAMES)),
    *(("event_version", bad, NAME_RULE) for bad in ("", *NAMES)),
    *(("event_id", bad, ID_RULE) for bad in ("", LONG, *CONTROL)),
    *(("aggregate_id", bad, ID_RULE) for bad in ("", LONG, *CONTROL)),
    *((field, bad, ID_RULE) for field in IDS for bad in (LONG, *CONTROL)),
    ("occurred_at", datetime(1, 1, 1, tzinfo=UTC), "must be from 0001-01-01T00:00:01Z to 9999-12-31T23:59:58Z"),
    ("occurred_at", datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC), "must be from 0001-01-01T00:00:01Z"),
    ("data", None, "is required: one of data, content"),
    ("data", "[" * 65 + "]" * 65, "must nest at most 64 levels"),
    ("data", '{"a":' * 64 + "[]" + "}" * 64, "must nest at most 64 levels"),
    ("data", '[{"a": -1' + "0" * 309 + "}]", "has a number beyond double precision"),
    ("content", b"x", "cannot be used with data"),
    ("content_type", "text/plain", "is that of content"),
    ("type_url", "a/b", "is that of content"),
    ("entity_version", -1, "must not be negative"),
    ("tags", ["t"] * 65, "must be at most 64"),
    ("tags[2]", ["a", "", "b"], ID_RULE),
    ("tags[1]", [None], ID_RULE),
    ("attributes", "[]", "must be an object"),
    ("attributes", json.dumps({f"k{number}": "" for number in range(65)}), "must be at most 64"),
    ("attributes", '{"a b": ""}', f"has a key that {NAME_RULE}"),
    ('attributes["a"]', '{"a": 1}', "must be text of at most 4096 characters"),
    ('attributes["a"]', '{"a": null}', "must be text of at most 4096 characters"),
    ('attributes["a"]', json.dumps({"a": "x" * 4097}), "must be text of at most 4096 characters"),
    ("event", "", f"must be at most {MEBI} bytes, not "),
]
ARGUMENTS: dict[str, dict[str, Any]] = {
    "event": {"data": json.dumps("x" * MEBI)},
    "content": {"data": "1", "content": b"x", "content_type": "x"},
    "content_type": {"data": "1", "content_type": "x"},
    "type_url": {"data": "1", "type_url": "a/b"},
}


async def refused(call: Awaitable[str]) -> list[str]:
    """The rules that an event breaks."""
    with pytest.raises(asyncpg.PostgresError) as caught:
        await call
    error: Any = caught.value
    assert error.sqlstate == "EB001"
    assert "Nothing was published" in error.hint
    faults: list[str] = error.detail.split("\n")
    assert all(fault in error.message for fault in faults)
    return faults


async def test_each_field_that_breaks_a_rule_is_refused_with_the_rule(sql: asyncpg.Connection) -> None:
    for field, bad, rule in BAD:
        said = ARGUMENTS.get(field) or {field.partition("[")[0]: bad}
        faults = await refused(publish(sql, **said))
        assert [fault.startswith(f"{field} {rule}") for fault in faults] == [True], (field, bad, faults)
    binary: dict[str, Any] = {"content": b"x", "data": None}
    for said, fault in [
        ({"content_type": ""}, f"content_type {ID_RULE}"),
        ({"content_type": "a\n"}, f"content_type {ID_RULE}"),
        ({"type_url": "nothing"}, "type_url must name a type"),
        ({"type_url": "a/b", "content_type": "x"}, "type_url cannot be used with content_type"),
    ]:
        (found,) = await refused(publish(sql, **binary | said))
        assert found.startswith(fault)
    assert await sql.fetchval("SELECT count(*) FROM eventbroker.outbox") == 0
    assert await sql.fetchval("SELECT sum(position) FROM eventbroker.shard_head") == 0


async def test_all_that_is_wrong_is_told_at_once(sql: asyncpg.Connection) -> None:
    faults = await refused(publish(sql, tenant_id="", event_type="A", aggregate_id="", tags=["\n"], data=None))
    assert [fault.split()[0] for fault in faults] == ["tenant_id", "event_type", "aggregate_id", "tags[1]", "data"]


async def test_what_just_keeps_the_rules_is_published(broker: Client, sql: asyncpg.Connection) -> None:
    published = [
        await publish(sql, data="[" * 64 + "]" * 64),
        await publish(sql, data='{"a": 1' + "0" * 308 + "}"),
        await publish(sql, event_type="a.b.c.d.e.f.g.h", tenant_id="x" * 128, user_id="🙂" * 256),
        await publish(sql, tags=["t"] * 64, attributes=json.dumps({f"k{number}": "x" * 4096 for number in range(64)})),
    ]
    async with await broker.subscribe("billing", "*", start=START_POINT_EARLIEST) as stream:
        assert set(ids(await stream.take_and_ack(4))) == set(published)


@asynccontextmanager
async def role_that_may(sql: asyncpg.Connection, *grants: str) -> AsyncIterator[None]:
    """Be such a role."""
    role = f"test_{uuid.uuid4().hex[:12]}"
    await sql.execute(f"CREATE ROLE {role}; GRANT USAGE ON SCHEMA eventbroker TO {role}")
    try:
        for grant in grants:
            await sql.execute(f"GRANT {grant} TO {role}")
        await sql.execute(f"SET ROLE {role}")
        yield
    finally:
        await sql.execute(f"RESET ROLE; DROP OWNED BY {role}; DROP ROLE {role}")


async def test_a_role_that_may_execute_it_can_publish_and_do_nothing_else(
    broker: Client, sql: asyncpg.Connection
) -> None:
    async with role_that_may(sql, "EXECUTE ON FUNCTION eventbroker.publish"):
        published = await publish(sql)
        for forbidden in ("SELECT * FROM eventbroker.outbox", "DELETE FROM eventbroker.events"):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await sql.execute(forbidden)
    async with await broker.subscribe("billing", "*", start=START_POINT_EARLIEST) as stream:
        assert ids(await stream.take_and_ack(1)) == [published]


async def test_a_role_that_was_not_told_so_may_not_publish(sql: asyncpg.Connection) -> None:
    async with role_that_may(sql):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await publish(sql)

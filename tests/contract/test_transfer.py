"""Export and import, on true PostgreSQL servers: what goes out comes in again, or nothing does."""

from __future__ import annotations

import asyncio
import io
import json
import os
from collections import Counter
from contextlib import AsyncExitStack, aclosing
from typing import TYPE_CHECKING, Any

import pytest
from eventbroker_server.domain.conditions import Conditions
from eventbroker_server.domain.errors import BadExport, TransferRefused
from eventbroker_server.domain.event import DataForm, Event, Metadata, StoredEvent, shard_of
from eventbroker_server.domain.filter import TypeFilter
from eventbroker_server.domain.group import ALL_TENANTS, Group, GroupKey
from eventbroker_server.domain.retry import RetryPolicy
from eventbroker_server.ports import Failure, Row, Saved, Waiting
from eventbroker_server.postgres.event_log import PostgresEventLog
from eventbroker_server.postgres.group_store import PostgresGroupStore
from eventbroker_server.postgres.migrate import migrate
from eventbroker_server.postgres.pool import open_pool
from eventbroker_server.postgres.retry_store import PostgresRetryStore
from eventbroker_server.transfer import exporting, reading
from eventbroker_server.transfer.exporting import exported
from eventbroker_server.transfer.frame import KINDS, Tally
from eventbroker_server.transfer.importing import import_export
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.conftest import stores_on
from tests.domain_events import FIRST_MOMENT, LAST_MOMENT, domain_event, domain_events
from tests.sql import rewrite
from tests.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from eventbroker_server.engines import Engines
    from eventbroker_server.postgres.pool import Pool

    NewDatabase = Callable[..., Awaitable[Pool]]

SHARDS = 2
END = 2**62
TENANT, NEIGHBOR, ELSEWHERE = "acme", "acme-4", "acme-3"
KEY = GroupKey(TENANT, "billing")
GROUP = Group(
    KEY,
    TypeFilter.of("user.*", "b"),
    12.3,
    RetryPolicy(0.1, max_attempts=2),
    ordered=True,
    conditions=Conditions(tags=frozenset({'"ü"'})),
)
EVERYTHING = Group(GroupKey(ALL_TENANTS, "all"), TypeFilter.of(), 1.0)


def test_the_tenants_of_this_file_are_where_it_takes_them_to_be() -> None:
    assert shard_of(TENANT, SHARDS) == shard_of(NEIGHBOR, SHARDS) != shard_of(ELSEWHERE, SHARDS)


@pytest.fixture
async def new_database(engines: Engines) -> AsyncIterator[NewDatabase]:
    """Makes databases: an installation with so many shards, or none."""
    async with AsyncExitStack() as stack:

        async def make(shards: int = 0) -> Pool:
            stores = await stack.enter_async_context(stores_on(engines))
            pool = await stack.enter_async_context(open_pool(stores.settings(), stores.postgres))
            if shards:
                await migrate(pool, shards)
            return pool

        yield make


async def append(pool: Pool, *events: Event, shards: int = SHARDS) -> None:
    for event in events:
        await PostgresEventLog(pool).append(shard_of(event.tenant_id, shards), [Row(event, None, 1)])


async def exported_bytes(pool: Pool, tenant: str = "", after: tuple[int, ...] = ()) -> bytes:
    async with aclosing(exported(pool, tenant, after)) as pages:
        return b"".join([page async for page in pages])


async def imported(pool: Pool, data: bytes, shards: int = 0) -> Any:
    return await import_export(pool, io.BytesIO(data), shards)


async def events_of(pool: Pool, tenant: str, shards: int = SHARDS) -> list[Any]:
    stored = await PostgresEventLog(pool).read(shard_of(tenant, shards), 0, END)
    return [one for one in stored if one.event.tenant_id == tenant]


@pytest.fixture
async def here(new_database: NewDatabase) -> tuple[Pool, Pool]:
    return await new_database(SHARDS), await new_database(SHARDS)


@pytest.fixture
async def source(new_database: NewDatabase) -> Pool:
    """An installation with events of every form, a group that has come halfway, a retry and a dead letter."""
    pool = await new_database(SHARDS)
    said = Metadata("billing service", "cause", 2**63 - 1, ("eu", "ü"), (("k", "v\n"), ("l", "")))
    await append(
        pool,
        domain_event(tenant_id=NEIGHBOR),
        domain_event(event_id="1", metadata=said, content=b'{"b": 1.0, "a":"\xc3\xbc"}', user_id="u", session_id="s"),
        domain_event(event_id="2", aggregate_id="u1", form=DataForm.MESSAGE, content_type="a.b/C", content=b"\0\xff"),
        domain_event(tenant_id=NEIGHBOR, timestamp=FIRST_MOMENT),
        domain_event(event_id="3", aggregate_id="u1", form=DataForm.BINARY, content_type="image/png", content=b""),
        domain_event(event_id="4", aggregate_id="u1", content=b"{\n}", timestamp=LAST_MOMENT, request_id="r"),
        domain_event(event_id="5"),
        domain_event(event_id="1", tenant_id=ELSEWHERE),
    )
    shard = shard_of(TENANT, SHARDS)
    groups = PostgresGroupStore(pool)
    await groups.create(GROUP, {shard: 4})
    await groups.create(EVERYTHING, {shard: 1})
    await groups.seek(KEY, {shard: 2}, 0.1)
    place = await groups.membership(KEY, shard)
    failures = [Failure(2, "d1", "c", "it broke", None, False), Failure(3, "d2", "c", "bäd", None, True)]
    await PostgresRetryStore(pool).record(GROUP, shard, place.generation, failures)
    await groups.save_checkpoint(KEY, shard, place.generation, 5, [(7, 9)])
    return pool


# Backup.


async def test_every_table_is_exported_or_known_not_to_be(source: Pool) -> None:
    exported_tables = {"events", "groups", "group_shards", "retries", "dead_letters"}
    made_anew = {"installation", "migrations", "shard_head"}
    derived = {"snapshots"}
    passing = {"outbox", "outbox_refused", "settled_in_sql"}
    async with source.connection() as connection:
        rows = await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'eventbroker'")
        columns = await connection.fetchval(
            "SELECT count(*) FROM information_schema.columns"
            " WHERE table_schema = 'eventbroker' AND table_name = 'events'"
        )
    assert {row[0] for row in rows} == exported_tables | made_anew | derived | passing
    assert columns == len(Event._fields) - 1 + len(StoredEvent._fields) - 1 + 1  # all but the wire; and the shard


async def test_an_export_of_what_was_imported_equals_the_first(source: Pool, new_database: NewDatabase) -> None:
    first = await exported_bytes(source)
    target = await new_database()
    assert await imported(target, first) == (2, 1, 1, 8)
    assert await exported_bytes(target) == first
    assert [line.split(b":")[0] for line in first.splitlines()] == [
        b'{"eventbroker"', b'{"group" ', b'{"group" ', b'{"retry" ', b'{"dead_letter" ', *[b'{"specversion"'] * 8,
        b'{"trailer"',
    ]  # fmt: skip


@settings(deadline=None, max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(events=st.lists(domain_events(), max_size=12, unique_by=lambda event: (event.tenant_id, event.event_id)))
async def test_whatever_was_published_comes_in_as_it_was(here: tuple[Pool, Pool], events: list[Event]) -> None:
    for pool in here:
        async with pool.connection() as connection:
            await rewrite(connection, "TRUNCATE eventbroker.events")
            await connection.execute("UPDATE eventbroker.shard_head SET position = 0")
    versions: Counter[Any] = Counter()
    for event in events:
        versions[event.aggregate] += 1
        await PostgresEventLog(here[0]).append(
            shard_of(event.tenant_id, SHARDS), [Row(event, versions[event.aggregate] - 1, 1)]
        )
    first = await exported_bytes(here[0])
    await imported(here[1], first)
    assert await exported_bytes(here[1]) == first


async def test_times_that_go_back_in_an_old_log_come_in(source: Pool, new_database: NewDatabase) -> None:
    async with source.connection() as connection:
        later = "UPDATE eventbroker.events SET recorded_at = recorded_at + interval '1 hour' WHERE event_id = '2'"
        await rewrite(connection, later)
    first = await exported_bytes(source)
    target = await new_database()
    await imported(target, first)
    assert await exported_bytes(target) == first


async def test_what_waits_in_the_outbox_is_left_out_with_a_warning(
    source: Pool, caplog: pytest.LogCaptureFixture
) -> None:
    async with source.connection() as connection:
        await connection.execute("SELECT eventbroker.publish('acme', 'user.created', 'User', 'u1', '{}')")
    before = caplog.text
    await exported_bytes(source, ELSEWHERE)
    assert caplog.text == before
    await exported_bytes(source)
    assert "not in the log yet were left out: 1" in caplog.text


async def test_an_export_is_the_same_whatever_fits_into_a_page(
    source: Pool, new_database: NewDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await exported_bytes(source)
    for positions, size in [(1, 1 << 20), (3, 1 << 20), (100, 1), (100, 20)]:
        monkeypatch.setattr(exporting, "_PAGE_POSITIONS", positions)
        monkeypatch.setattr(exporting, "_PAGE_BYTES", size)
        monkeypatch.setattr(exporting, "_PAGE_ROWS", 1)
        assert await exported_bytes(source) == first
    for lines, size in [(1, 1 << 20), (4, 1 << 20), (1000, 1000)]:
        monkeypatch.setattr(reading, "_BATCH_LINES", lines)
        monkeypatch.setattr(reading, "_BATCH_BYTES", size)
        target = await new_database(SHARDS)
        await imported(target, first)
        assert await exported_bytes(target) == first


async def test_an_export_holds_what_was_there_when_it_began(source: Pool, new_database: NewDatabase) -> None:
    before = await exported_bytes(source)
    pages = exported(source)
    first = await anext(pages)
    await append(source, domain_event())
    await PostgresGroupStore(source).delete(KEY)
    assert b"".join([first] + [page async for page in pages]) == before


async def test_what_is_published_after_an_import_goes_on(source: Pool, new_database: NewDatabase) -> None:
    target = await new_database()
    await imported(target, await exported_bytes(source))
    await append(target, domain_event(event_id="6", aggregate_id="u1"))
    last, added = (await events_of(target, TENANT))[-2:]
    assert (added.position, added.aggregate_version) == (last.position + 1, 4)
    assert added.record_time > last.record_time


async def test_increments_add_up_to_the_whole(source: Pool, new_database: NewDatabase) -> None:
    whole = await exported_bytes(source)
    heads = tuple(json.loads(whole.splitlines()[0])["heads"].values())
    await append(source, domain_event(), domain_event(tenant_id=NEIGHBOR))
    await PostgresGroupStore(source).delete(EVERYTHING.key)
    increment = await exported_bytes(source, after=heads)
    target = await new_database()
    await imported(target, whole)
    assert (await imported(target, increment)).events == 2
    assert await exported_bytes(target) == await exported_bytes(source)
    with pytest.raises(TransferRefused, match="goes on after"):
        await imported(target, increment)


# Moving a tenant.


@pytest.mark.parametrize("shards", [1, 2, 3])
async def test_a_tenant_moves_with_its_events_and_groups(source: Pool, new_database: NewDatabase, shards: int) -> None:
    target = await new_database(shards)
    await append(target, *(domain_event(tenant_id=NEIGHBOR) for _ in range(3)), shards=shards)
    await append(target, *(domain_event(tenant_id="other") for _ in range(2)), shards=shards)
    shard = shard_of(TENANT, shards)
    head = await PostgresEventLog(target).head(shard)
    newest = await PostgresEventLog(target).record_time(shard, head)
    assert await imported(target, await exported_bytes(source, TENANT)) == (1, 1, 1, 5)

    before, moved = await events_of(source, TENANT), await events_of(target, TENANT, shards)
    assert [(one.event, one.aggregate_version) for one in moved] == [
        (one.event, one.aggregate_version) for one in before
    ]
    assert [one.position for one in moved] == list(range(head + 1, head + 6))
    assert len({one.record_time for one in moved}) == 1
    assert newest is None or moved[0].record_time > newest
    assert await PostgresEventLog(target).head(shard) == head + 5

    groups = PostgresGroupStore(target)
    assert await groups.find(KEY) == GROUP
    place = await groups.membership(KEY, shard)
    assert (place.checkpoint, place.replay_to, place.pace, place.paced_to) == (head + 3, head + 5, 0.1, head + 5)
    saved = await groups.save_checkpoint(KEY, shard, place.generation, 0)
    assert saved == Saved(head + 3, [(head + 5, head + 6)])  # there was no event at 8
    elsewhere = [await groups.membership(KEY, other) for other in range(shards) if other != shard]
    assert [each.checkpoint for each in elsewhere] == [0] * (shards - 1)
    retries = PostgresRetryStore(target)
    assert await retries.unsettled(KEY, shard, range(head, head + 9)) == [Waiting(head + 1, 1), Waiting(head + 2, -1)]
    trouble = await retries.trouble(KEY, shard, head + 2)
    assert trouble
    assert trouble.error == "bäd"


async def test_a_tenant_that_moves_comes_in_while_others_publish(source: Pool, new_database: NewDatabase) -> None:
    target = await new_database(1)
    data = await exported_bytes(source, TENANT)
    reader, writer = os.pipe()
    with os.fdopen(reader, "rb") as file, os.fdopen(writer, "wb", buffering=0) as pipe:
        pipe.write(data[:-10])
        importing = asyncio.create_task(import_export(target, file))
        await append(target, *(domain_event(tenant_id=NEIGHBOR) for _ in range(3)), shards=1)
        assert not importing.done()
        pipe.write(data[-10:])
        pipe.close()
        await importing
    assert [one.position for one in await events_of(target, TENANT, 1)] == [4, 5, 6, 7, 8]


async def test_a_tenant_that_moves_comes_behind_what_is_being_published(
    source: Pool, new_database: NewDatabase
) -> None:
    target = await new_database(1)
    data = await exported_bytes(source, TENANT)
    waiting = "SELECT true FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    async with PostgresEventLog(target).deciding(0) as decision, target.connection() as watching:
        importing = asyncio.create_task(imported(target, data))
        await eventually(lambda: watching.fetchval(waiting))
        await decision.insert([Row(domain_event(tenant_id=NEIGHBOR), None, 1)])
    await importing
    (published,) = await events_of(target, NEIGHBOR, 1)
    moved = await events_of(target, TENANT, 1)
    assert [one.position for one in [published, *moved]] == [1, 2, 3, 4, 5, 6]
    assert moved[0].record_time > published.record_time


async def test_a_group_that_has_settled_nothing_or_all_keeps_its_place(new_database: NewDatabase) -> None:
    source, target = await new_database(1), await new_database(1)
    await append(source, domain_event(tenant_id=NEIGHBOR), *(domain_event() for _ in range(3)), shards=1)
    groups = PostgresGroupStore(source)
    for name, checkpoint in [("a", 0), ("b", 1), ("c", 2), ("d", 4)]:
        await groups.create(Group(GroupKey(TENANT, name), TypeFilter.of(), 1.0), {0: checkpoint})
    await append(target, *(domain_event(tenant_id=NEIGHBOR) for _ in range(7)), shards=1)
    await imported(target, await exported_bytes(source, TENANT))
    places = [await PostgresGroupStore(target).membership(GroupKey(TENANT, name), 0) for name in "abcd"]
    assert [place.checkpoint for place in places] == [7, 7, 8, 10]


# Refusals, which leave nothing.


def sealed(lines: list[bytes]) -> bytes:
    """Lines with a last one that vouches for them."""
    tally = Tally()
    tally.add(b"".join(lines))
    for line in lines[1:]:
        kind = line[2:].split(b'"')[0].decode()
        tally.counts[kind if kind in KINDS else "event"] += 1
    return b"".join([*lines, tally.trailer()])


async def refuses(pool: Pool, data: bytes, error: type[Exception], match: str, shards: int = 0) -> None:
    """Importing it fails so, and changes nothing."""
    before = await exported_bytes(pool)
    with pytest.raises(error, match=match):
        await imported(pool, data, shards)
    assert await exported_bytes(pool) == before


async def test_an_export_that_is_cut_off_or_changed_is_refused(source: Pool, new_database: NewDatabase) -> None:
    data, target = await exported_bytes(source), await new_database(SHARDS)
    lines = data.splitlines(keepends=True)
    for number in range(len(lines)):
        await refuses(target, b"".join(lines[:number]), BadExport, f"line {number + 1} is cut off")
    await refuses(target, data[:-1], BadExport, f"line {len(lines)} is cut off")
    await refuses(target, data + b"\n", BadExport, f"line {len(lines) + 1} comes after")
    changed = data.replace(b'"subject":"User', b'"subject":"Loser', 1)
    await refuses(target, changed, BadExport, f"line {len(lines)} tells other counts or another digest")
    await imported(target, data)


EVENT, THIRD = 5, 7  # lines of an export of `source`, counted from 0: its first event, and the third


@pytest.mark.parametrize(
    ("line", "old", "new", "match"),
    [
        (0, b"export", b"import", "line 1 is not the first line"),
        (0, b'"version":1', b'"version":2', "line 1 is of version 2"),
        (0, b'"shards":2', b'"shards":3', "line 1 must tell heads"),
        (0, b'{"', b'"', "line 1 is not JSON"),
        (1, b'{"group"', b'{"grope"', "line 2 begins as none of"),
        (1, b'{"group"', b'"group"', "line 2 is not JSON"),
        (1, b'"places"', b'"spaces"', "line 2 group must have its places"),
        (1, b'"ack_deadline":', b'"x":', "line 2 is nothing that the database takes"),
        (1, b'"all"', b'"a l"', "line 2 group must name a group"),
        (3, b'"attempts":1', b'"attempts":"x"', "line 4 is nothing that the database takes"),
        (3, b"{", b"{}\n{", "line 4 begins as none of"),
        (EVENT, b'"id":"', b'"id":"\\u0001', "line 6 id must be"),
        (EVENT, b'"type":', b'"kind":', "line 6 type must be"),
        (EVENT, b'"shard":', b'"shard":1', "line 6 shard is"),
        (EVENT, b'"position":"', b'"position":"1', "line 6 position is"),
        (EVENT, b'"aggregateversion":"1"', b'"aggregateversion":"0"', "line 6 aggregateversion must be"),
        (THIRD, b'"data', b'"\xff', "line 8"),
    ],
)
async def test_a_line_that_is_wrong_is_named(
    source: Pool, new_database: NewDatabase, line: int, old: bytes, new: bytes, match: str
) -> None:
    lines = (await exported_bytes(source)).splitlines(keepends=True)
    assert old in lines[line]
    lines[line] = lines[line].replace(old, new, 1)
    await refuses(await new_database(SHARDS), sealed(lines[:-1]), BadExport, match)


async def test_lines_that_lie_together_are_refused(source: Pool, new_database: NewDatabase) -> None:
    target = await new_database(SHARDS)
    *lines, _ = (await exported_bytes(source)).splitlines(keepends=True)
    assert sealed(lines) == await exported_bytes(source)
    await refuses(target, sealed(lines[:-1]), BadExport, "where the first line tells")
    await refuses(target, sealed([*lines[:5], *lines[6:]]), BadExport, "line 6 position is")
    await refuses(target, sealed([*lines, lines[1]]), BadExport, "is a group after a event")
    twice = [line.replace(b'"id":"4"', b'"id":"5"') for line in lines]
    await refuses(target, sealed(twice), TransferRefused, "events_id")
    await refuses(target, sealed([lines[0], *lines[3:]]), TransferRefused, "foreign key")
    beyond = [line.replace(b'"checkpoint":5', b'"checkpoint":99') for line in lines]
    await refuses(target, sealed(beyond), TransferRefused, "beyond the last event")
    nowhere = [line.replace(b'"position":3,"event_tenant_id"', b'"position":99,"event_tenant_id"') for line in lines]
    assert nowhere != lines
    await refuses(target, sealed(nowhere), TransferRefused, "has no event")
    other = [line.replace(b'"schema":', b'"schema":9') for line in lines]
    await refuses(target, sealed(other), TransferRefused, "was made with migration 9")


async def test_an_installation_that_has_something_takes_no_whole(source: Pool, new_database: NewDatabase) -> None:
    data = await exported_bytes(source)
    await refuses(source, data, TransferRefused, "there are events here")
    with_group = await new_database(SHARDS)
    await PostgresGroupStore(with_group).create(EVERYTHING, {})
    await refuses(with_group, data, TransferRefused, "there are groups here")


async def test_a_whole_goes_where_the_shards_are_as_many(source: Pool, new_database: NewDatabase) -> None:
    data = await exported_bytes(source)
    await refuses(await new_database(3), data, TransferRefused, "has 2 shards, and this installation has others")
    await refuses(await new_database(2), data, TransferRefused, "the setting `shards` is 3", shards=3)


async def test_a_tenant_goes_where_it_is_not(source: Pool, new_database: NewDatabase) -> None:
    data = await exported_bytes(source, TENANT)
    await refuses(source, data, TransferRefused, "there is a tenant acme here already")
    with_group = await new_database(1)
    await PostgresGroupStore(with_group).create(GROUP, {})
    await refuses(with_group, data, TransferRefused, "there is a tenant acme here already")


async def test_of_a_tenant_that_moves_nothing_may_be_missing(source: Pool, new_database: NewDatabase) -> None:
    target = await new_database(1)
    *lines, _ = (await exported_bytes(source, TENANT)).splitlines(keepends=True)
    part = await exported_bytes(source, TENANT, (2,))
    await refuses(target, part, TransferRefused, "this is an increment of a tenant")
    retry_event = next(number for number, line in enumerate(lines) if b'"id":"1"' in line)
    without = sealed(lines[:retry_event] + lines[retry_event + 1 :])
    await refuses(target, without, TransferRefused, "has no event")
    foreign = [line.replace(b'"tenant_id":"acme"', b'"tenant_id":"other"') for line in lines]
    await refuses(target, sealed(foreign), BadExport, "line 2 group must name a group that belongs to the export")


async def test_what_is_not_there_is_not_exported(source: Pool, new_database: NewDatabase) -> None:
    for pool, tenant, after, match in [
        (source, "nobody", (), "there is no tenant nobody"),
        (source, "", (1,), "takes 2 positions"),
        (source, "", (99, 0), "takes 2 positions"),
        (source, TENANT, (1, 1), "takes 1 position"),
        (await new_database(), "", (), "there are no events in this database"),
    ]:
        with pytest.raises(TransferRefused, match=match):
            await exported_bytes(pool, tenant, after)

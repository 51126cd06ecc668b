"""What the event log promises, on true PostgreSQL servers."""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import uuid
from contextlib import AsyncExitStack, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest
from eventbroker_server.domain.conditions import Conditions, Facts
from eventbroker_server.domain.errors import BadSetting, UnsafeStore
from eventbroker_server.domain.event import DataForm, Metadata
from eventbroker_server.domain.filter import TypeFilter
from eventbroker_server.domain.group import ALL_TENANTS, Group, GroupKey
from eventbroker_server.engines import postgres
from eventbroker_server.ports import Collision, Row
from eventbroker_server.postgres import safety
from eventbroker_server.postgres.event_log import PostgresEventLog
from eventbroker_server.postgres.group_store import PostgresGroupStore
from eventbroker_server.postgres.migrate import migrate
from eventbroker_server.postgres.pool import open_pool
from eventbroker_server.postgres.safety import check_postgres
from eventbroker_server.settings import Settings
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.domain_events import FIRST_MOMENT, LAST_MOMENT, domain_event, domain_events
from tests.engines import engine_directory, engines_of
from tests.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from eventbroker_server.domain.event import Event, StoredEvent
    from eventbroker_server.postgres.pool import Pool

    from tests.conftest import Stores

SHARDS = 3
END = 2**62


class RolledBackError(Exception):
    """Ends a transaction without a commit."""


@pytest.fixture
async def new_pool(stores: Stores) -> AsyncIterator[Callable[[], Awaitable[Pool]]]:
    """Opens pools on the test's database, as brokers do."""
    async with AsyncExitStack() as stack:

        async def make() -> Pool:
            return await stack.enter_async_context(open_pool(stores.settings(), stores.postgres))

        yield make


@pytest.fixture
async def pool(new_pool: Callable[[], Awaitable[Pool]]) -> Pool:
    pool = await new_pool()
    await migrate(pool, SHARDS)
    return pool


@pytest.fixture
async def event_log(pool: Pool) -> PostgresEventLog:
    return PostgresEventLog(pool)


@pytest.fixture
async def sql(stores: Stores) -> AsyncIterator[Any]:
    """A connection beside the broker's."""
    connection = await asyncpg.connect(stores.postgres)
    yield connection
    await connection.close()


def rows(*events: Event) -> list[Row]:
    """Rows as an append without expectations has them: the store is to look the versions up."""
    steps: dict[Any, int] = {}
    made = []
    for event in events:
        steps[event.aggregate] = steps.get(event.aggregate, 0) + 1
        made.append(Row(event, None, steps[event.aggregate]))
    return made


def positions(stored: list[StoredEvent]) -> list[int]:
    return [one.position for one in stored]


# Append.


async def test_appends_get_the_positions_1_2_3(event_log: PostgresEventLog) -> None:
    firsts = [(await event_log.append(0, rows(*(domain_event() for _ in range(count))))).first for count in (1, 3, 2)]
    assert firsts == [1, 2, 5]
    assert await event_log.head(0) == 6
    assert positions(await event_log.read(0, 0, END)) == [1, 2, 3, 4, 5, 6]


async def test_an_empty_log_has_head_0(event_log: PostgresEventLog) -> None:
    assert await event_log.head(0) == 0
    assert await event_log.read(0, 0, END) == []
    assert await event_log.record_time(0, 1) is None
    assert await event_log.find(("acme", "none")) is None


async def test_versions_are_numbered_for_each_aggregate_and_looked_up_where_no_base_is_given(
    event_log: PostgresEventLog,
) -> None:
    a, b = domain_event(aggregate_id="a"), domain_event(aggregate_id="b")
    assert (await event_log.append(0, rows(a, b, domain_event(aggregate_id="a")))).versions == [1, 1, 2]
    other = domain_event(aggregate_id="a", tenant_id="other")
    assert (await event_log.append(0, rows(other, domain_event(aggregate_id="a")))).versions == [1, 3]
    assert (await event_log.append(0, [Row(domain_event(aggregate_id="a"), 3, 1)])).versions == [4]


async def test_record_times_rise_with_positions_also_when_the_clock_is_set_back(
    event_log: PostgresEventLog, sql: Any
) -> None:
    await event_log.append(0, rows(domain_event()))
    ahead = await sql.fetchval(
        "UPDATE eventbroker.shard_head SET recorded_at = recorded_at + interval '1 hour' WHERE shard = 0"
        " RETURNING recorded_at"
    )
    for position in (2, 3):
        appended = await event_log.append(0, rows(domain_event()))
        assert (appended.record_time, await event_log.record_time(0, position)) == (ahead, ahead)
    assert (await event_log.append(1, rows(domain_event()))).record_time < ahead


async def test_events_of_one_append_are_next_to_each_other_with_one_record_time(event_log: PostgresEventLog) -> None:
    events = [domain_event() for _ in range(5)]
    appended = await event_log.append(0, rows(*events))
    stored = await event_log.read(0, 0, END)
    assert [one.event.event_id for one in stored] == [event.event_id for event in events]
    assert {one.record_time for one in stored} == {appended.record_time}
    assert await event_log.record_time(0, 3) == appended.record_time


async def test_an_append_with_a_taken_id_collides_and_stores_nothing(event_log: PostgresEventLog) -> None:
    await event_log.append(0, rows(domain_event(event_id="e1")))
    with pytest.raises(Collision):
        await event_log.append(0, rows(domain_event(), domain_event(event_id="e1"), domain_event()))
    assert positions(await event_log.read(0, 0, END)) == [1]
    assert (await event_log.append(0, rows(domain_event(event_id="e1", tenant_id="other")))).first == 2


async def test_an_append_with_a_taken_version_collides_and_stores_nothing(event_log: PostgresEventLog) -> None:
    await event_log.append(0, rows(*(domain_event(aggregate_id="a") for _ in range(2))))
    with pytest.raises(Collision):
        await event_log.append(0, [*rows(domain_event()), Row(domain_event(aggregate_id="a"), 1, 1)])
    assert await event_log.head(0) == 2
    assert positions(await event_log.read(0, 0, END)) == [1, 2]


@pytest.mark.parametrize("every_nth_rolled_back", [0, 20])
async def test_concurrent_appends_are_gapless_and_in_commit_order(
    new_pool: Callable[[], Awaitable[Pool]], event_log: PostgresEventLog, every_nth_rolled_back: int
) -> None:
    logs = [PostgresEventLog(await new_pool()) for _ in range(3)]
    told: dict[str, int] = {}

    async def write(writer: int) -> None:
        for number in range(20):
            events = [domain_event(aggregate_id=f"w{writer}") for _ in range(1 + number % 3)]
            if every_nth_rolled_back and (writer * 20 + number) % every_nth_rolled_back == 0:
                with suppress(RolledBackError):
                    async with logs[writer % 3].deciding(0) as shard:
                        await shard.insert(rows(*events))
                        raise RolledBackError
            else:
                appended = await logs[writer % 3].append(0, rows(*events))
                told.update((event.event_id, appended.first + step) for step, event in enumerate(events))

    async def follow(done: asyncio.Event) -> list[str]:
        """Read what is new until all is written; each page begins right behind the one before."""
        seen: list[str] = []
        last = False
        while not last:
            last = done.is_set()
            page = await event_log.read(0, len(seen), END)
            assert positions(page) == list(range(len(seen) + 1, len(seen) + 1 + len(page)))
            seen += [one.event.event_id for one in page]
        return seen

    done = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        readers = [tasks.create_task(follow(done)) for _ in range(2)]
        await asyncio.gather(*(write(writer) for writer in range(12)))
        done.set()
    stored = await event_log.read(0, 0, END)
    assert {one.event.event_id: one.position for one in stored} == told
    assert await event_log.head(0) == len(told)
    for reader in readers:
        assert reader.result() == [one.event.event_id for one in stored]


async def test_shards_are_numbered_and_locked_each_for_itself(event_log: PostgresEventLog) -> None:
    await event_log.append(0, rows(domain_event(), domain_event()))
    async with event_log.deciding(0), event_log.deciding(1):
        assert (await event_log.append(2, rows(domain_event()))).first == 1
    assert [await event_log.head(shard) for shard in range(SHARDS)] == [2, 0, 1]
    assert [len(await event_log.read(shard, 0, END)) for shard in range(SHARDS)] == [2, 0, 1]


# Deciding.


async def test_deciding_locks_the_shard_so_that_what_is_read_still_holds(event_log: PostgresEventLog, sql: Any) -> None:
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    aggregate = domain_event(aggregate_id="a").aggregate
    async with event_log.deciding(0) as shard:
        rival = asyncio.create_task(event_log.append(0, rows(domain_event(aggregate_id="a"))))
        await eventually(lambda: sql.fetchval(waiting))
        assert await shard.versions([aggregate]) == {}
        first = await shard.insert([Row(domain_event(aggregate_id="a"), 0, 1)])
        assert not rival.done()
    assert first.first == 1
    # The rival looked its version up before the other committed, which the unique key objects to.
    with pytest.raises(Collision):
        await rival
    assert await event_log.head(0) == 1


async def test_deciding_finds_events_and_versions(event_log: PostgresEventLog) -> None:
    events = [domain_event(aggregate_id="a"), domain_event(aggregate_id="a"), domain_event(tenant_id="other")]
    await event_log.append(0, rows(*events))
    absent = domain_event()
    async with event_log.deciding(0) as shard:
        found = await shard.find_events([event.key for event in [*events, absent]])
        assert {key: one.position for key, one in found.items()} == {
            event.key: position for position, event in enumerate(events, 1)
        }
        assert await shard.versions({events[0].aggregate, events[2].aggregate, absent.aggregate}) == {
            events[0].aggregate: 2,
            events[2].aggregate: 1,
        }


async def test_what_is_inserted_while_deciding_is_there_after_the_block_and_not_before(
    event_log: PostgresEventLog,
) -> None:
    async with event_log.deciding(0) as shard:
        assert (await shard.insert(rows(domain_event(event_id="e1")))).first == 1
        assert await event_log.find(("acme", "e1")) is None
    assert await event_log.find(("acme", "e1"))


# Read.


async def test_read_answers_what_lies_after_one_position_and_up_to_another(event_log: PostgresEventLog) -> None:
    await event_log.append(0, rows(*(domain_event() for _ in range(5))))
    assert positions(await event_log.read(0, 1, 3)) == [2, 3]
    assert await event_log.read(0, 3, 3) == []
    assert positions(await event_log.read(0, 4, END)) == [5]


async def test_find_knows_an_event_by_its_tenant_and_id(event_log: PostgresEventLog) -> None:
    events = [domain_event(event_id="e1"), domain_event(event_id="e1", tenant_id="other")]
    await event_log.append(0, rows(*events))
    for position, event in enumerate(events, 1):
        found = await event_log.find(event.key)
        assert found
        assert (found.event, found.position) == (event, position)
    assert await event_log.find(("third", "e1")) is None


TENANTS = ["a_c", "abc", "a%c", "a", "%", "*"]
TYPES = ["user.created", "user.mail.changed", "user", "users.created", "us_r.created", "us%.created", "u.x"]


FILTERS = [
    ["*"], ["user.*"], ["user"], ["us_r.*"], ["us%.*"], ["us_r.created"], ["us%.created"], ["%"], ["_"], ["u.*"],
    ["user.mail.*", "users.created"], ["nothing.*"],
]  # fmt: skip


async def test_a_group_reads_just_the_events_of_its_tenant_and_filter(event_log: PostgresEventLog) -> None:
    offered = [domain_event(tenant_id=tenant, event_type=event_type) for tenant in TENANTS for event_type in TYPES]
    await event_log.append(0, rows(*offered))
    for tenant, patterns in itertools.product([ALL_TENANTS, "a_c", "a%c", "%", "a", "none"], FILTERS):
        group = Group(GroupKey(tenant, "g"), TypeFilter.of(*patterns), 30.0)
        wanted = [
            position
            for position, event in enumerate(offered, 1)
            if tenant in (ALL_TENANTS, event.tenant_id) and group.filter.matches(event.event_type)
        ]
        events, upto = await event_log.read_for(group, 0, 0, END)
        assert (positions(events), upto) == (wanted, END), group
        events, upto = await event_log.read_for(group, 0, 9, 30)
        assert (positions(events), upto) == ([at for at in wanted if 9 < at <= 30], 30), group
        assert await event_log.read_for(group, 1, 0, END) == ([], END)


async def test_a_group_does_not_read_again_what_is_settled_beyond_its_checkpoint(
    event_log: PostgresEventLog, pool: Pool
) -> None:
    groups = PostgresGroupStore(pool)
    await event_log.append(0, rows(*(domain_event() for _ in range(9))))
    group = Group(GroupKey(ALL_TENANTS, "g"), TypeFilter.of("*"), 30.0)
    await groups.create(group, {})
    generation = (await groups.membership(group.key, 0)).generation
    await groups.save_checkpoint(group.key, 0, generation, 2, [(4, 7), (9, 10)])
    events, upto = await event_log.read_for(group, 0, 2, 9)
    assert (positions(events), upto) == ([3, 7, 8], 9)
    assert [position for position, _ in await event_log.places(group, 0, 2, 9)] == [3, 7, 8]
    other = replace(group, key=GroupKey(ALL_TENANTS, "h"))
    assert positions((await event_log.read_for(other, 0, 2, 9))[0]) == [3, 4, 5, 6, 7, 8, 9]


async def test_a_page_holds_no_more_events_than_asked_for_and_tells_where_it_ends(
    event_log: PostgresEventLog,
) -> None:
    await event_log.append(0, rows(*(domain_event(event_type=name) for name in ("a", "b", "a", "b", "a", "b"))))
    group = Group(GroupKey(ALL_TENANTS, "g"), TypeFilter.of("a"), 30.0)
    pages, upto = [], 0
    while upto < 6:
        events, upto = await event_log.read_for(group, 0, upto, 6, 2)
        pages.append((positions(events), upto))
    assert pages == [([1, 3], 3), ([5], 6)]


AWKWARD = [
    "a",
    "A",
    "",
    "ü",
    "u\u0308",
    "日本",
    "\U0001f600",
    '"',
    "'",
    "\\",
    "{a,b}",
    '["a"]',
    "NULL",
    " ",
    "a ",
    "%",
    "$1",
]
_said = st.sampled_from(AWKWARD)
_name = st.sampled_from([text for text in AWKWARD if text])
_named = st.frozensets(_name, max_size=3)


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    facts=st.lists(st.builds(Facts, _said, _name, st.lists(_said, max_size=4).map(tuple)), min_size=1, max_size=8),
    conditions=st.builds(Conditions, _named, _named, _named),
)
async def test_history_meets_the_conditions_that_live_events_meet(
    event_log: PostgresEventLog, facts: list[Facts], conditions: Conditions
) -> None:
    offered = [
        domain_event(aggregate_type=fact.aggregate_type, metadata=Metadata(source=fact.source, tags=fact.tags))
        for fact in facts
    ]
    before = (await event_log.append(0, rows(*offered))).first - 1
    group = Group(GroupKey(ALL_TENANTS, "g"), TypeFilter.of("*"), 30.0, conditions=conditions)
    wanted = [before + number for number, fact in enumerate(facts, 1) if conditions.met_by(fact)]
    end = before + len(facts)
    events, _ = await event_log.read_for(group, 0, before, end)
    assert positions(events) == wanted
    assert await event_log.count_for(group, 0, before, end) == len(wanted)


async def test_a_page_of_many_bytes_ends_early_and_tells_where(event_log: PostgresEventLog) -> None:
    large = [domain_event(form=DataForm.BINARY, content_type="a/b", content=bytes(1 << 20)) for _ in range(6)]
    await event_log.append(0, rows(*large))
    group = Group(GroupKey(ALL_TENANTS, "g"), TypeFilter.of("*"), 30.0)
    assert positions(await event_log.read(0, 0, END)) == [1, 2, 3, 4]
    events, upto = await event_log.read_for(group, 0, 0, END)
    assert (positions(events), upto) == ([1, 2, 3, 4], 4)
    events, upto = await event_log.read_for(group, 0, upto, END)
    assert (positions(events), upto) == ([5, 6], END)


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(events=st.lists(domain_events(), min_size=1, max_size=8, unique_by=lambda event: event.event_id))
async def test_every_field_comes_back_equal(event_log: PostgresEventLog, events: list[Event]) -> None:
    tenant = uuid.uuid4().hex
    events = [event._replace(tenant_id=tenant) for event in events]
    appended = await event_log.append(0, rows(*events))
    stored = await event_log.read(0, appended.first - 1, END)
    assert [one.event for one in stored] == events
    assert [one.aggregate_version for one in stored] == appended.versions
    assert [await event_log.find(event.key) for event in events] == stored


@pytest.mark.parametrize(
    "changes",
    [
        {"timestamp": FIRST_MOMENT},
        {"timestamp": LAST_MOMENT},
        {"form": DataForm.BINARY, "content_type": "x/y", "content": bytes(range(256)) * 4096},
        {"content": b""},
    ],
    ids=["year 1", "year 9999", "1 MiB", "empty"],
)
async def test_the_extremes_come_back_equal(event_log: PostgresEventLog, changes: dict[str, Any]) -> None:
    event = domain_event(**changes)
    await event_log.append(0, rows(event))
    assert [one.event for one in await event_log.read(0, 0, END)] == [event]


# The view for people.

SEED = {
    "id", "event_id", "event_type", "event_version", "aggregate_id", "aggregate_type", "aggregate_version", "tenant_id",
    "user_id", "session_id", "request_id", "correlation_id", "event_data", "metadata", "timestamp", "created_at",
}  # fmt: skip


async def test_the_view_shows_the_columns_of_the_seed(event_log: PostgresEventLog, sql: Any) -> None:
    event = domain_event(content='{"email": "ü@x"}'.encode(), user_id="u1", event_version="v2")
    await event_log.append(0, rows(event))
    (row,) = await sql.fetch("SELECT * FROM eventbroker.event_store")
    assert set(row.keys()) >= SEED
    assert isinstance(row["id"], uuid.UUID)
    assert json.loads(row["event_data"]) == {"email": "ü@x"}
    shown = ("tenant_id", "event_id", "event_type", "event_version", "aggregate_type", "aggregate_id", "timestamp")
    assert [row[column] for column in shown] == [getattr(event, column) for column in shown]
    assert (row["aggregate_version"], row["user_id"], row["session_id"]) == (1, "u1", None)
    assert row["created_at"] == await event_log.record_time(0, 1)


ODD = {
    "no JSON": b"not json",
    "empty": b"",
    "NUL": rb'{"a": "\u0000"}',
    "raw NUL": b'"\0"',
    "lone surrogate": rb'"\ud800"',
    "no UTF-8": b"\xff\xfe",
    "huge number": b"1e1000000",
    "NaN": b"NaN",
    "NaN within": b'{"a": NaN, "b": Infinity}',
    "deep": b"[" * 100_000,
    "long": b"x" * 1000,
}


async def test_the_view_survives_data_that_jsonb_cannot_hold(event_log: PostgresEventLog, sql: Any) -> None:
    odd = [domain_event(content=content) for content in ODD.values()]
    await event_log.append(0, rows(domain_event(content=b"1"), *odd, domain_event(content=b"2")))
    shown = [
        json.loads(data)
        for (data,) in await sql.fetch("SELECT event_data FROM eventbroker.event_store ORDER BY position")
    ]
    assert (shown[0], shown[-1]) == (1, 2)
    assert [base64.b64decode(data["@base64"]) for data in shown[1:-1]] == list(ODD.values())
    assert {data["@content_type"] for data in shown[1:-1]} == {"application/json"}


async def test_the_view_shows_messages_and_binary_data_in_base64(event_log: PostgresEventLog, sql: Any) -> None:
    message = domain_event(form=DataForm.MESSAGE, content_type="x/T", content=b"{}")
    binary = domain_event(form=DataForm.BINARY, content_type="text/plain", content=b"\0")
    await event_log.append(0, rows(message, binary))
    shown = await sql.fetch("SELECT event_data FROM eventbroker.event_store ORDER BY position")
    assert [json.loads(data) for (data,) in shown] == [
        {"@type": "x/T", "@base64": "e30="},
        {"@content_type": "text/plain", "@base64": "AA=="},
    ]


# Migrations, and what is refused.


async def test_migrating_again_changes_nothing(pool: Pool, event_log: PostgresEventLog) -> None:
    before = await migrate(pool, 0)
    await event_log.append(0, rows(domain_event()))
    assert await migrate(pool, SHARDS) == before
    assert (before.shards, len(before.ack_key)) == (SHARDS, 32)
    assert await event_log.head(0) == 1


async def test_brokers_that_start_at_once_migrate_once(new_pool: Callable[[], Awaitable[Pool]], sql: Any) -> None:
    pools = [await new_pool() for _ in range(4)]
    installations = await asyncio.gather(*(migrate(pool, 2) for pool in pools))
    assert len(set(installations)) == 1
    assert await sql.fetchval("SELECT array_agg(shard ORDER BY shard) FROM eventbroker.shard_head") == [0, 1]
    numbers = await sql.fetchval("SELECT array_agg(number ORDER BY number) FROM eventbroker.migrations")
    assert numbers == list(range(1, len(numbers) + 1))


async def test_a_new_database_has_one_shard_unless_told_otherwise(new_pool: Callable[[], Awaitable[Pool]]) -> None:
    assert (await migrate(await new_pool(), 0)).shards == 1


async def test_another_number_of_shards_is_refused_by_name(pool: Pool) -> None:
    with pytest.raises(BadSetting, match=r"shards is 5, but .* 3") as raised:
        await migrate(pool, 5)
    assert raised.value.setting == "shards"


async def test_a_migration_that_was_changed_after_it_ran_is_refused(pool: Pool, sql: Any) -> None:
    await sql.execute("UPDATE eventbroker.migrations SET checksum = 'other' WHERE number = 1")
    with pytest.raises(UnsafeStore, match=r"0001_log\.sql was changed"):
        await migrate(pool, 0)


async def test_a_database_of_a_newer_broker_is_refused(pool: Pool, sql: Any) -> None:
    await sql.execute("INSERT INTO eventbroker.migrations (number, name, checksum) VALUES (9999, '9999_new.sql', '')")
    with pytest.raises(UnsafeStore, match=r"9999_new\.sql.*Run a newer broker"):
        await migrate(pool, 0)


async def test_a_safe_server_is_taken(pool: Pool, sql: Any) -> None:
    assert await check_postgres(pool) == await sql.fetchval("SHOW server_version")


async def test_a_database_that_does_not_wait_for_the_flush_is_refused(
    new_pool: Callable[[], Awaitable[Pool]], stores: Stores, sql: Any
) -> None:
    await sql.execute(f"ALTER DATABASE {stores.prefix} SET synchronous_commit = off")
    with pytest.raises(UnsafeStore, match="synchronous_commit=off") as raised:
        await check_postgres(await new_pool())
    assert "synchronous_commit=on" in raised.value.remedy


@pytest.mark.parametrize("setting", ["fsync", "full_page_writes"])
async def test_a_server_that_may_lose_what_it_committed_is_refused(
    monkeypatch: pytest.MonkeyPatch, setting: str
) -> None:
    monkeypatch.setitem(postgres.SETTINGS, setting, "off")
    with engine_directory() as directory:
        async with engines_of("wheel", directory, valkey=False) as engines:
            assert engines.postgres
            async with open_pool(Settings(), engines.postgres.url) as pool:
                with pytest.raises(UnsafeStore, match=f"{setting}=off") as raised:
                    await check_postgres(pool)
    assert raised.value.remedy == f"Set {setting}=on in postgresql.conf"


async def test_a_server_that_is_too_old_is_refused(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(safety, "FLOOR", 990000)
    with pytest.raises(UnsafeStore, match=r"PostgreSQL is 1\d\.\d"):
        await check_postgres(pool)

"""What the snapshot store promises, on true PostgreSQL servers."""

from __future__ import annotations

import asyncio
import base64
import json
import uuid
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest
from eventbroker_server.domain.errors import SnapshotAhead, VersionBeyond
from eventbroker_server.domain.event import DataForm
from eventbroker_server.ports import Row
from eventbroker_server.postgres.event_log import PostgresEventLog
from eventbroker_server.postgres.migrate import migrate
from eventbroker_server.postgres.pool import open_pool
from eventbroker_server.postgres.snapshots import PostgresSnapshotStore

from tests.domain_events import domain_event

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from eventbroker_server.domain.event import AggregateKey, Data
    from eventbroker_server.domain.snapshot import Rebuilt
    from eventbroker_server.postgres.pool import Pool

    from tests.conftest import Stores

KEY = ("acme", "User", "u1")
NEIGHBOURS = [("globex", "User", "u1"), ("acme", "Session", "u1"), ("acme", "User", "u2")]
MEBI = 1 << 20
MICROSECOND = timedelta(microseconds=1)


def state(content: bytes) -> Data:
    return DataForm.JSON, "", content


@pytest.fixture
async def pool(stores: Stores) -> AsyncIterator[Pool]:
    """A database in which KEY is at version 5, recorded one by one, and each of its neighbours at 2."""
    async with open_pool(stores.settings(), stores.postgres) as pool:
        await migrate(pool, 1)
        for _ in range(5):
            await append(pool, KEY)
        for neighbour in NEIGHBOURS:
            await append(pool, neighbour, b"{}", b"{}")
        yield pool


@pytest.fixture
def snapshots(pool: Pool) -> PostgresSnapshotStore:
    return PostgresSnapshotStore(pool)


@pytest.fixture
async def sql(stores: Stores, pool: Pool) -> AsyncIterator[Any]:
    connection = await asyncpg.connect(stores.postgres)
    yield connection
    await connection.close()


async def append(pool: Pool, key: AggregateKey, *contents: bytes) -> None:
    tenant, kind, aggregate = key
    place = {"tenant_id": tenant, "aggregate_type": kind, "aggregate_id": aggregate}
    events = [domain_event(content=content, **place) for content in contents or (b"{}",)]
    await PostgresEventLog(pool).append(0, [Row(event, None, step) for step, event in enumerate(events, 1)])


async def rebuild(
    snapshots: PostgresSnapshotStore, as_of: int | datetime | None = None, most: int = 1000, **options: bool
) -> Rebuilt:
    rebuilt = await snapshots.rebuild(KEY, as_of, most, **({"with_snapshot": True} | options))
    assert rebuilt is not None
    return rebuilt


def told(rebuilt: Rebuilt) -> tuple[int, int, list[int]]:
    """The version it is at, that of its snapshot (0: none), and those of its events."""
    versions = [stored.aggregate_version for stored in rebuilt.events]
    return rebuilt.version, rebuilt.snapshot.version if rebuilt.snapshot else 0, versions


# Saving.


@pytest.mark.parametrize(
    "data",
    [
        state(b'{"b": 1,  "a": "\\u0000"}'),
        (DataForm.MESSAGE, "example.org/State", b""),
        (DataForm.BINARY, "application/avro", bytes(range(256))),
    ],
    ids=lambda data: data[0].name,
)
async def test_a_snapshot_comes_back_as_it_was_saved(snapshots: PostgresSnapshotStore, data: Data) -> None:
    saved_at = await snapshots.save(KEY, 3, data)
    assert await snapshots.find(KEY) == (KEY, 3, data, saved_at)


async def test_a_snapshot_of_the_same_version_overrules(snapshots: PostgresSnapshotStore) -> None:
    first = await snapshots.save(KEY, 3, state(b"1"))
    second = await snapshots.save(KEY, 3, (DataForm.BINARY, "text/plain", b"2"))
    assert second > first
    assert await snapshots.find(KEY) == (KEY, 3, (DataForm.BINARY, "text/plain", b"2"), second)
    assert len(await snapshots.page(KEY, None, 10)) == 1


@pytest.mark.parametrize(
    ("key", "version", "actual"),
    [(KEY, 6, 5), (KEY, 2**63 - 1, 5), (NEIGHBOURS[0], 3, 2), (("acme", "User", "nobody"), 1, 0)],
)
async def test_a_snapshot_ahead_of_its_aggregate_is_refused(
    snapshots: PostgresSnapshotStore, key: AggregateKey, version: int, actual: int
) -> None:
    with pytest.raises(SnapshotAhead) as caught:
        await snapshots.save(key, version, state(b"1"))
    assert (caught.value.details["asked"], caught.value.details["actual"]) == (str(version), str(actual))
    assert await snapshots.find(key) is None


async def test_a_snapshot_of_the_latest_version_is_no_refusal(snapshots: PostgresSnapshotStore, pool: Pool) -> None:
    await snapshots.save(KEY, 5, state(b"5"))
    await append(pool, KEY)
    await snapshots.save(KEY, 6, state(b"6"))
    assert [one.version for one in await snapshots.page(KEY, None, 10)] == [6, 5]


async def test_of_snapshots_saved_at_once_under_one_version_one_is_left(snapshots: PostgresSnapshotStore) -> None:
    contents = [state(str(number).encode()) for number in range(20)]
    saved = await asyncio.gather(*(snapshots.save(KEY, 4, data) for data in contents))
    found = await snapshots.find(KEY)
    assert found
    assert (found.data, found.created_at) in list(zip(contents, saved, strict=True))
    assert found.created_at == max(saved)


async def test_an_aggregate_has_only_its_own_snapshots(snapshots: PostgresSnapshotStore) -> None:
    for number, key in enumerate([KEY, *NEIGHBOURS]):
        await snapshots.save(key, 1, state(str(number).encode()))
    for number, key in enumerate([KEY, *NEIGHBOURS]):
        found = await snapshots.find(key)
        assert found
        assert (found.aggregate, found.data) == (key, state(str(number).encode()))
        assert [one.aggregate for one in await snapshots.page(key, None, 10)] == [key]


# Finding.


@pytest.mark.parametrize(("most", "found"), [(None, 4), (5, 4), (4, 4), (3, 2), (2, 2), (1, None), (2**63 - 1, 4)])
async def test_the_latest_snapshot_up_to_a_version_is_found(
    snapshots: PostgresSnapshotStore, most: int | None, found: int | None
) -> None:
    for version in (4, 2):
        await snapshots.save(KEY, version, state(b"1"))
    one = await snapshots.find(KEY, most)
    assert (one and one.version) == found


async def test_snapshots_are_listed_the_latest_first_and_without_data(snapshots: PostgresSnapshotStore) -> None:
    saved_at = {version: await snapshots.save(KEY, version, state(b"1")) for version in (3, 1, 5, 2)}
    assert await snapshots.page(KEY, None, 2) == [(KEY, version, None, saved_at[version]) for version in (5, 3)]
    assert [one.version for one in await snapshots.page(KEY, 3, 10)] == [2, 1]
    assert await snapshots.page(KEY, 1, 10) == []


# Rebuilding.


async def test_an_aggregate_without_snapshots_is_all_of_its_events(snapshots: PostgresSnapshotStore) -> None:
    rebuilt = await rebuild(snapshots)
    assert told(rebuilt) == (5, 0, [1, 2, 3, 4, 5])
    assert {stored.event.aggregate for stored in rebuilt.events} == {KEY}
    assert (rebuilt.position, rebuilt.record_time) == (5, rebuilt.events[-1].record_time)


@pytest.mark.parametrize(
    ("as_of", "with_snapshot", "expected"),
    [
        (None, True, (5, 4, [5])),
        (None, False, (5, 0, [1, 2, 3, 4, 5])),
        (5, True, (5, 4, [5])),
        (4, True, (4, 4, [])),
        (3, True, (3, 2, [3])),
        (3, False, (3, 0, [1, 2, 3])),
        (1, True, (1, 0, [1])),
    ],
)
async def test_a_version_is_its_latest_snapshot_and_the_events_after_it(
    snapshots: PostgresSnapshotStore, as_of: int | None, with_snapshot: bool, expected: tuple[int, int, list[int]]
) -> None:
    for version in (2, 4):
        await snapshots.save(KEY, version, state(str(version).encode()))
    rebuilt = await rebuild(snapshots, as_of, with_snapshot=with_snapshot)
    assert told(rebuilt) == expected
    assert rebuilt.position == rebuilt.version
    if rebuilt.snapshot:
        assert rebuilt.snapshot.data == state(str(expected[1]).encode())


async def test_a_time_is_what_was_recorded_then_or_before(snapshots: PostgresSnapshotStore) -> None:
    await snapshots.save(KEY, 3, state(b"3"))  # counts for every time since version 3, though it was saved later
    times = [stored.record_time for stored in (await rebuild(snapshots, with_snapshot=False)).events]
    assert times == sorted(set(times))
    for version, time in enumerate(times, 1):
        expected = (version, 3, list(range(4, version + 1))) if version >= 3 else (version, 0, [1, 2, 3][:version])
        rebuilt = await rebuild(snapshots, time)
        assert told(rebuilt) == expected
        assert (rebuilt.position, rebuilt.record_time) == (version, time)
        if version < 5:
            assert told(await rebuild(snapshots, times[version] - MICROSECOND)) == expected
    assert told(await rebuild(snapshots, datetime.max.replace(tzinfo=UTC))) == (5, 3, [4, 5])


async def test_before_its_first_event_there_was_no_aggregate(snapshots: PostgresSnapshotStore) -> None:
    first = (await rebuild(snapshots, 1)).record_time
    for time in (first - MICROSECOND, datetime.min.replace(tzinfo=UTC)):
        assert await snapshots.rebuild(KEY, time, 10, with_snapshot=True) is None


@pytest.mark.parametrize("as_of", [None, 1, datetime.max.replace(tzinfo=UTC)])
async def test_an_aggregate_without_events_is_none(
    snapshots: PostgresSnapshotStore, as_of: int | datetime | None
) -> None:
    assert await snapshots.rebuild(("acme", "User", "nobody"), as_of, 10, with_snapshot=True) is None


async def test_a_version_that_is_not_there_yet_is_refused(snapshots: PostgresSnapshotStore) -> None:
    with pytest.raises(VersionBeyond) as caught:
        await snapshots.rebuild(KEY, 6, 10, with_snapshot=True)
    assert caught.value.details == {"aggregate_type": "User", "aggregate_id": "u1", "asked": "6", "actual": "5"}


async def test_so_many_events_are_answered_at_most(snapshots: PostgresSnapshotStore) -> None:
    assert told(await rebuild(snapshots, most=2)) == (5, 0, [1, 2])
    await snapshots.save(KEY, 2, state(b"2"))
    assert told(await rebuild(snapshots, most=2)) == (5, 2, [3, 4])
    assert told(await rebuild(snapshots, most=3)) == (5, 2, [3, 4, 5])


async def test_4_mebibytes_of_data_are_answered_at_most_or_one_event(
    snapshots: PostgresSnapshotStore, pool: Pool
) -> None:
    await append(pool, KEY, *[b"x" * MEBI] * 4, b"", b"x" * 5 * MEBI, b"x")
    assert told(await rebuild(snapshots)) == (12, 0, [1, 2, 3, 4, 5, 6, 7, 8])  # the small ones are bytes, too
    await snapshots.save(KEY, 5, state(b"5"))
    assert told(await rebuild(snapshots)) == (12, 5, [6, 7, 8])
    await snapshots.save(KEY, 5, (DataForm.MESSAGE, "example.org/State", b""))
    assert told(await rebuild(snapshots)) == (12, 5, [6, 7, 8, 9, 10])
    await snapshots.save(KEY, 10, state(b"5"))
    assert told(await rebuild(snapshots)) == (12, 10, [11])


async def test_what_is_rebuilt_while_events_and_snapshots_come_is_of_one_moment(
    snapshots: PostgresSnapshotStore, pool: Pool
) -> None:
    await snapshots.save(KEY, 5, state(b"5"))

    async def write() -> None:
        for version in range(6, 46):
            await append(pool, KEY)
            await snapshots.save(KEY, version, state(str(version).encode()))

    async with asyncio.TaskGroup() as tasks:
        writing = tasks.create_task(write())
        while not writing.done():
            version, snapshot, events = told(await rebuild(snapshots))
            assert version - 1 <= snapshot <= version
            assert events == list(range(snapshot + 1, version + 1))


# The view for people.

SEED = {"id", "aggregate_id", "aggregate_type", "tenant_id", "version", "snapshot_data", "created_at"}


async def test_the_view_shows_the_columns_of_the_seed(snapshots: PostgresSnapshotStore, sql: Any) -> None:
    saved_at = await snapshots.save(KEY, 3, state('{"name": "ü"}'.encode()))
    (row,) = await sql.fetch("SELECT * FROM eventbroker.event_snapshots")
    assert set(row.keys()) == SEED
    assert isinstance(row["id"], uuid.UUID)
    assert (row["tenant_id"], row["aggregate_type"], row["aggregate_id"]) == KEY
    assert (row["version"], json.loads(row["snapshot_data"]), row["created_at"]) == (3, {"name": "ü"}, saved_at)


async def test_the_view_shows_what_jsonb_cannot_hold_in_base64(snapshots: PostgresSnapshotStore, sql: Any) -> None:
    kept = [
        (state(rb'{"a": "\u0000"}'), {"@content_type": "application/json"}),
        ((DataForm.MESSAGE, "x/T", b"\0"), {"@type": "x/T"}),
        ((DataForm.BINARY, "text/plain", b"x" * 1000), {"@content_type": "text/plain"}),
    ]
    for version, (data, _) in enumerate(kept, 1):
        await snapshots.save(KEY, version, data)
    shown = await sql.fetch("SELECT id, snapshot_data FROM eventbroker.event_snapshots ORDER BY version")
    assert len({row["id"] for row in shown}) == 3
    for row, (data, kind) in zip(shown, kept, strict=True):
        assert json.loads(row["snapshot_data"]) == kind | {"@base64": base64.b64encode(data[2]).decode()}

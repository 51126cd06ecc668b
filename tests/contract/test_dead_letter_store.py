"""What the dead letter store promises, on true PostgreSQL servers."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest
from eventbroker_server.domain.dead_letter import DeadLetter, DeadLetterFilter, FailedAttempt, Redriven
from eventbroker_server.domain.errors import DeadLetterNotFound
from eventbroker_server.domain.filter import TypeFilter
from eventbroker_server.domain.group import ALL_TENANTS, Group, GroupKey
from eventbroker_server.ports import Row
from eventbroker_server.postgres.dead_letter_store import PostgresDeadLetterStore
from eventbroker_server.postgres.event_log import PostgresEventLog
from eventbroker_server.postgres.group_store import PostgresGroupStore
from eventbroker_server.postgres.migrate import migrate
from eventbroker_server.postgres.pool import open_pool

from tests.domain_events import domain_event
from tests.graveyard import HISTORY, NOON, Graveyard, after

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from eventbroker_server.postgres.pool import Pool

    from tests.conftest import Stores

KEY = GroupKey("acme", "billing")
OTHERS = [GroupKey("globex", "billing"), GroupKey(ALL_TENANTS, "billing"), GroupKey("acme", "shipping")]
GROUPS: list[GroupKey] = [KEY, *OTHERS]
ALL = DeadLetterFilter()
DAY = 86_400


@pytest.fixture
async def pool(stores: Stores) -> AsyncIterator[Pool]:
    """A database with four groups and the events e1 to e5 of acme, g1 of globex."""
    async with open_pool(stores.settings(), stores.postgres) as pool:
        await migrate(pool, 1)
        for key in GROUPS:
            await PostgresGroupStore(pool).ensure(Group(key, TypeFilter.of("*"), 30.0), from_latest=False)
        events = [
            domain_event(event_id="e1", aggregate_id="u1"),
            domain_event(event_id="e2", aggregate_id="u2"),
            domain_event(event_id="e3", aggregate_id="u1", event_type="user.mail.changed"),
            domain_event(event_id="e4", aggregate_id="u1", aggregate_type="Session", event_type="session.revoked"),
            domain_event(event_id="e5", aggregate_id="u5"),
            domain_event(event_id="g1", tenant_id="globex"),
        ]
        await PostgresEventLog(pool).append(0, [Row(event, None, 1) for event in events if event.event_id != "e3"])
        await PostgresEventLog(pool).append(0, [Row(event, None, 1) for event in events if event.event_id == "e3"])
        yield pool


@pytest.fixture
def store(pool: Pool) -> PostgresDeadLetterStore:
    return PostgresDeadLetterStore(pool)


@pytest.fixture
async def graves(pool: Pool, stores: Stores) -> AsyncIterator[Graveyard]:
    """Dead letters of billing at acme: e1, e2, e3, e4, a minute apart."""
    postgres = await asyncpg.connect(stores.postgres)
    graves = Graveyard(postgres)
    for number in range(1, 5):
        await graves.bury(KEY, f"e{number}", after(60 * number))
    yield graves
    await postgres.close()


async def ids(store: PostgresDeadLetterStore, key: GroupKey = KEY, wanted: DeadLetterFilter = ALL) -> list[str]:
    return [dead.event_id for dead in await store.page(key, wanted, None, 100)]


async def redrive(
    store: PostgresDeadLetterStore, wanted: DeadLetterFilter = ALL, most: int = 100, rate: float = 0, **options: Any
) -> Redriven:
    return await store.redrive(KEY, wanted, most, rate, **({"dry_run": False} | options))


async def test_a_dead_letter_is_found_with_its_history(store: PostgresDeadLetterStore, graves: Graveyard) -> None:
    found = await store.find(KEY, ("acme", "e2"))
    assert found == DeadLetter(
        event_tenant_id="acme",
        event_id="e2",
        event_type="user.created",
        aggregate_type="User",
        aggregate_id="u2",
        shard=0,
        position=2,
        attempts=2,
        reason="no such user",
        rejected=False,
        dead_at=after(120),
        history=(
            FailedAttempt(1, datetime(2026, 1, 2, 11, 58, 0, 500000, tzinfo=UTC), "c1", "deadline"),
            FailedAttempt(2, datetime(2026, 1, 2, 11, 59, tzinfo=UTC), "", "no such user"),
        ),
    )
    assert (await store.page(KEY, ALL, None, 100))[2] == found._replace(history=())


async def test_an_event_that_is_no_dead_letter_is_not_found(store: PostgresDeadLetterStore, graves: Graveyard) -> None:
    for event in [("acme", "e5"), ("globex", "e2"), ("acme", "nothing")]:
        assert await store.find(KEY, event) is None


async def test_pages_show_each_dead_letter_once_the_newest_first(
    store: PostgresDeadLetterStore, graves: Graveyard
) -> None:
    await graves.bury(KEY, "e5", after(120))  # at the moment of e2, at a higher position
    shown, before = [], None
    while page := await store.page(KEY, ALL, before, 2):
        assert len(page) <= 2
        shown += [dead.event_id for dead in page]
        before = page[-1].place
    assert shown == ["e4", "e3", "e5", "e2", "e1"]


async def test_dead_letters_of_one_group_never_show_for_another(
    store: PostgresDeadLetterStore, graves: Graveyard
) -> None:
    named = DeadLetterFilter(event_ids=("e1",), event_tenant_id="acme")
    for key in OTHERS:
        assert await ids(store, key) == []
        assert await store.find(key, ("acme", "e1")) is None
        assert await store.delete(key, ALL, dry_run=True) == await store.delete(key, ALL, dry_run=False) == 0
        for dry_run in (True, False):
            assert await store.redrive(key, ALL, 100, 0, dry_run=dry_run) == Redriven(0, 0)
            with pytest.raises(DeadLetterNotFound):
                await store.redrive(key, named, 100, 0, dry_run=dry_run)
    assert await graves.dead() == ["e1", "e2", "e3", "e4"]


async def test_an_event_that_two_groups_gave_up_is_redriven_to_one(
    store: PostgresDeadLetterStore, graves: Graveyard
) -> None:
    for key in OTHERS[1:]:
        await graves.bury(key, "e1", after(60))
    assert await redrive(store, DeadLetterFilter(event_ids=("e1",), event_tenant_id="acme")) == Redriven(1, 0)
    (retry,) = await graves.retries()
    assert (retry["tenant_id"], retry["name"]) == KEY
    assert [await ids(store, key) for key in GROUPS] == [["e4", "e3", "e2"], [], ["e1"], ["e1"]]


FILTERS: list[tuple[dict[str, Any], list[str]]] = [
    ({}, ["e4", "e3", "e2", "e1"]),
    ({"types": TypeFilter.of("user.created")}, ["e2", "e1"]),
    ({"types": TypeFilter.of("user.*")}, ["e3", "e2", "e1"]),
    ({"types": TypeFilter.of("user.mail.*", "session.revoked")}, ["e4", "e3"]),
    ({"types": TypeFilter.of("user")}, []),
    ({"aggregate_type": "User"}, ["e3", "e2", "e1"]),
    ({"aggregate_type": "User", "aggregate_id": "u1"}, ["e3", "e1"]),
    ({"event_tenant_id": "acme"}, ["e4", "e3", "e2", "e1"]),
    ({"event_tenant_id": "globex"}, []),
    ({"event_tenant_id": "acme", "event_ids": ("e1", "e4", "e5")}, ["e4", "e1"]),
    ({"reason_contains": "such"}, ["e4", "e3", "e2", "e1"]),
    ({"reason_contains": "SUCH"}, []),
    ({"reason_contains": "%"}, []),
    ({"dead_after": after(120)}, ["e4", "e3", "e2"]),
    ({"dead_before": after(120)}, ["e1"]),
    ({"dead_after": after(120), "dead_before": after(121), "types": TypeFilter.of("user.*")}, ["e2"]),
]


async def test_a_filter_means_the_same_to_every_call(store: PostgresDeadLetterStore, graves: Graveyard) -> None:
    for fields, expected in FILTERS:
        wanted = DeadLetterFilter(**fields)
        assert await ids(store, wanted=wanted) == expected, fields
        assert await store.delete(KEY, wanted, dry_run=True) == len(expected), fields
        if "event_ids" not in fields:
            assert await redrive(store, wanted, dry_run=True) == Redriven(len(expected), 0), fields


async def test_a_group_of_all_tenants_tells_their_events_apart(
    store: PostgresDeadLetterStore, graves: Graveyard
) -> None:
    everybody = GroupKey(ALL_TENANTS, "billing")
    await graves.bury(everybody, "e1", after(1))
    await graves.bury(everybody, "g1", after(2))
    assert await ids(store, everybody) == ["g1", "e1"]
    assert await ids(store, everybody, DeadLetterFilter(event_tenant_id="globex")) == ["g1"]


async def test_a_dead_letter_that_is_redriven_becomes_a_retry_without_an_attempt(
    store: PostgresDeadLetterStore, graves: Graveyard
) -> None:
    before = await graves.postgres.fetchval("SELECT clock_timestamp()")
    assert await redrive(store) == Redriven(4, 0)
    after_ = await graves.postgres.fetchval("SELECT clock_timestamp()")
    retries = await graves.retries()
    assert [(retry["event_id"], retry["attempts"], retry["queued"]) for retry in retries] == [
        (event_id, 0, 0)
        for event_id in ("e1", "e2", "e4", "e3")  # in the order of positions: e3 was stored last
    ]
    assert all(before <= retry["due_at"] <= after_ for retry in retries)
    assert all(json.loads(retry["history"]) == HISTORY for retry in retries)
    assert {retry["delivery"] for retry in retries} == {"d"}  # the one that it died of
    assert await graves.dead() == []


async def test_the_oldest_go_first_and_the_rest_is_told(store: PostgresDeadLetterStore, graves: Graveyard) -> None:
    users = DeadLetterFilter(types=TypeFilter.of("user.*"))
    assert await redrive(store, users, most=2, dry_run=True) == Redriven(2, 1)
    assert await graves.dead() == ["e1", "e2", "e3", "e4"]
    assert await redrive(store, users, most=2) == Redriven(2, 1)
    assert await graves.dead() == ["e3", "e4"]
    assert await redrive(store, users, most=2) == Redriven(1, 0)
    assert await redrive(store, users, most=2) == Redriven(0, 0)


async def test_a_rate_spreads_what_is_redriven_in_the_order_in_which_it_died(
    store: PostgresDeadLetterStore, graves: Graveyard
) -> None:
    await redrive(store, rate=0.5)
    retries = await graves.retries()
    assert [retry["event_id"] for retry in retries] == ["e1", "e2", "e3", "e4"]
    assert [retry["due_at"] - retries[0]["due_at"] for retry in retries] == [
        timedelta(seconds=seconds) for seconds in (0, 2, 4, 6)
    ]


@pytest.mark.parametrize("dry_run", [True, False])
async def test_if_one_event_that_is_named_is_no_dead_letter_none_is_redriven(
    store: PostgresDeadLetterStore, graves: Graveyard, dry_run: bool
) -> None:
    wanted = DeadLetterFilter(event_ids=("e1", "e5", "e2", "nothing"), event_tenant_id="acme")
    with pytest.raises(DeadLetterNotFound) as raised:
        await redrive(store, wanted, dry_run=dry_run)
    assert raised.value.event_ids == ["e5", "nothing"]
    assert await graves.dead() == ["e1", "e2", "e3", "e4"]
    assert await graves.retries() == []


async def test_an_event_that_a_seek_brought_back_keeps_its_attempts(
    store: PostgresDeadLetterStore, graves: Graveyard
) -> None:
    await graves.postgres.execute(
        "INSERT INTO eventbroker.retries VALUES ('acme', 'billing', 0, 1, 3, now(), 7, 'd', '[]', 'acme', 'User', 'u1')"
    )
    assert await redrive(store) == Redriven(4, 0)
    (kept,) = [retry for retry in await graves.retries() if retry["event_id"] == "e1"]
    assert (kept["attempts"], kept["queued"], kept["delivery"]) == (3, 7, "d")
    assert await graves.dead() == []


async def test_of_many_redrives_at_once_each_dead_letter_is_moved_by_one(
    store: PostgresDeadLetterStore, graves: Graveyard
) -> None:
    answers = await asyncio.gather(*(redrive(store, most=1) for _ in range(8)))
    assert sorted(answer.moved for answer in answers) == [0, 0, 0, 0, 1, 1, 1, 1]
    assert len(await graves.retries()) == 4


async def test_of_many_redrives_that_name_the_same_events_one_moves_them_all(
    store: PostgresDeadLetterStore, graves: Graveyard
) -> None:
    wanted = DeadLetterFilter(event_ids=("e3", "e1"), event_tenant_id="acme")
    calls = (redrive(store, wanted) for _ in range(6))
    answers = await asyncio.gather(*calls, return_exceptions=True)
    assert [answer for answer in answers if not isinstance(answer, DeadLetterNotFound)] == [Redriven(2, 0)]
    assert await graves.dead() == ["e2", "e4"]


async def test_what_is_deleted_is_gone_and_becomes_no_retry(store: PostgresDeadLetterStore, graves: Graveyard) -> None:
    wanted = DeadLetterFilter(aggregate_type="User", aggregate_id="u1")
    assert await store.delete(KEY, wanted, dry_run=True) == 2
    assert await graves.dead() == ["e1", "e2", "e3", "e4"]
    assert await store.delete(KEY, wanted, dry_run=False) == 2
    assert await graves.dead() == ["e2", "e4"]
    assert await graves.retries() == []
    assert await store.delete(KEY, wanted, dry_run=False) == 0


async def test_more_than_fit_into_one_step_are_deleted(
    store: PostgresDeadLetterStore, graves: Graveyard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("eventbroker_server.postgres.dead_letter_store._STEP", 3)
    assert await store.delete(KEY, ALL, dry_run=False) == 4
    assert await graves.dead() == []


async def test_what_is_past_the_retention_of_its_group_is_purged(
    store: PostgresDeadLetterStore, graves: Graveyard
) -> None:
    set_retention = "UPDATE eventbroker.groups SET dead_letter_retention = $1 WHERE tenant_id = $2 AND name = $3"
    now = await graves.postgres.fetchval("SELECT clock_timestamp()")
    age = (now - NOON).total_seconds() - 150  # between e2 and e3
    await graves.postgres.execute(set_retention, age, *KEY)
    await graves.postgres.execute(set_retention, 1e300, *OTHERS[2])
    await graves.bury(OTHERS[1], "e5", now - timedelta(seconds=30 * DAY - 60))
    await graves.bury(OTHERS[2], "e5", now - timedelta(seconds=3000 * DAY))
    assert await store.purge() == 2
    assert [await ids(store, key) for key in GROUPS] == [["e4", "e3"], [], ["e5"], ["e5"]]
    assert await store.purge() == 0

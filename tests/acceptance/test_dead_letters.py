"""Dead letters: looked at, redriven, deleted and purged, through the port. They are made by SQL."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import asyncpg
import grpc
import pytest
from eventbroker.v1.dead_letter_service_pb2 import (
    DeadLetterFilter,
    DeleteDeadLettersRequest,
    DeleteDeadLettersResponse,
    GetDeadLetterRequest,
    GetDeadLetterResponse,
    ListDeadLettersRequest,
    ListDeadLettersResponse,
    RedriveDeadLettersRequest,
    RedriveDeadLettersResponse,
)
from eventbroker_server.domain.group import ALL_TENANTS, GroupKey
from google.protobuf.timestamp_pb2 import Timestamp

from tests.acceptance.refused import refused
from tests.client import TIMEOUT, event
from tests.graveyard import Graveyard, after
from tests.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from tests.client import Client
    from tests.conftest import Stores

KEY, EVERYBODY = GroupKey("acme", "billing"), GroupKey(ALL_TENANTS, "billing")
ALL = DeadLetterFilter(all=True)
NOT_FOUND, INVALID = grpc.StatusCode.NOT_FOUND, grpc.StatusCode.INVALID_ARGUMENT
ID, NAME = "1 to 256 characters without control characters", "1 to 128 characters of"


@pytest.fixture
async def graves(broker: Client, stores: Stores) -> AsyncIterator[Graveyard]:
    """Billing of acme and billing of all tenants; the first gave up e1, e2, e3, a minute apart, and not e4."""
    await broker.publish(*(event(event_id=f"e{number}", aggregate_id=f"u{number}") for number in range(1, 5)))
    for tenant in ("acme", ""):
        (await broker.subscribe("billing", tenant_id=tenant)).close()
    postgres = await asyncpg.connect(stores.postgres)
    graves = Graveyard(postgres)
    for number in range(1, 4):
        await graves.bury(KEY, f"e{number}", after(60 * number))
    yield graves
    await postgres.close()


def to_acme(fields: dict[str, Any]) -> dict[str, Any]:
    return {"group": "billing", "tenant_id": "acme"} | fields


async def shown(broker: Client, **fields: Any) -> ListDeadLettersResponse:
    request = ListDeadLettersRequest(**to_acme(fields))
    return await broker.dead_letters.ListDeadLetters(request, timeout=TIMEOUT)


async def got(broker: Client, **fields: Any) -> GetDeadLetterResponse:
    return await broker.dead_letters.GetDeadLetter(GetDeadLetterRequest(**to_acme(fields)), timeout=TIMEOUT)


async def redriven(broker: Client, **fields: Any) -> RedriveDeadLettersResponse:
    request = RedriveDeadLettersRequest(**to_acme(fields))
    return await broker.dead_letters.RedriveDeadLetters(request, timeout=TIMEOUT)


async def deleted(broker: Client, **fields: Any) -> DeleteDeadLettersResponse:
    request = DeleteDeadLettersRequest(**to_acme(fields))
    return await broker.dead_letters.DeleteDeadLetters(request, timeout=TIMEOUT)


CALLS: list[Callable[..., Awaitable[Any]]] = [shown, got, redriven, deleted]
NEEDED: dict[Any, dict[str, Any]] = {
    shown: {},
    got: {"event_id": "e1"},
    redriven: {"filter": ALL},
    deleted: {"filter": ALL},
}


def ids(page: ListDeadLettersResponse) -> list[str]:
    return [dead.event_id for dead in page.dead_letters]


async def test_a_dead_letter_tells_its_event_and_every_attempt(broker: Client, graves: Graveyard) -> None:
    answer = await got(broker, event_id="e2")
    assert answer.event == await broker.get_event("e2")
    dead = answer.dead_letter
    assert (dead.event_id, dead.event_type, dead.aggregate_type, dead.aggregate_id, dead.event_tenant_id) == (
        *("e2", "user.created", "User", "u2"),
        "acme",
    )
    assert (dead.shard, dead.position, dead.attempts, dead.reason, dead.rejected) == (0, 2, 2, "no such user", False)
    assert dead.dead_at.ToJsonString() == "2026-01-02T12:02:00.123456Z"
    assert [(said.attempt, said.at.ToJsonString(), said.consumer, said.error) for said in answer.history] == [
        (1, "2026-01-02T11:58:00.500Z", "c1", "deadline"),
        (2, "2026-01-02T11:59:00Z", "", "no such user"),
    ]
    assert dead in (await shown(broker)).dead_letters


async def test_an_event_that_is_no_dead_letter_is_not_found(broker: Client, graves: Graveyard) -> None:
    for fields in ({"event_id": "e4"}, {"event_id": "e1", "event_tenant_id": "other"}):
        refusal = await refused(got(broker, **fields), NOT_FOUND, "DEAD_LETTER_NOT_FOUND")
        assert refusal.details["ResourceInfo"].resource_name == fields["event_id"]


async def test_a_list_goes_on_where_its_token_says(broker: Client, graves: Graveyard) -> None:
    first = await shown(broker, page_size=2)
    second = await shown(broker, page_size=2, page_token=first.next_page_token)
    assert (ids(first), ids(second), second.next_page_token) == (["e3", "e2"], ["e1"], "")
    assert ids(await shown(broker, filter=ALL)) == ["e3", "e2", "e1"]


async def test_a_token_is_good_for_the_request_that_it_was_given_for(broker: Client, graves: Graveyard) -> None:
    token = (await shown(broker, page_size=1)).next_page_token
    last = "A" if token[10] != "A" else "B"
    others: list[dict[str, Any]] = [
        {"page_token": token, "filter": ALL},
        {"page_token": token, "tenant_id": ""},
        *({"page_token": bad} for bad in ("x", "ü", "====", token[:-4], token + "AAAA")),
        {"page_token": token[:10] + last + token[11:]},
    ]
    for fields in others:
        violations = (await refused(shown(broker, **fields), INVALID, "INVALID_ARGUMENT")).violations
        assert violations.keys() == {"page_token"}, fields


async def test_a_dead_letter_that_is_redriven_is_due_for_its_group(broker: Client, graves: Graveyard) -> None:
    answer = await redriven(broker, filter=DeadLetterFilter(event_ids=["e2"]))
    assert (answer.redriven, answer.remaining) == (1, 0)
    (retry,) = await graves.retries()
    assert (retry["tenant_id"], retry["name"], retry["event_id"], retry["position"]) == (*KEY, "e2", 2)
    assert ids(await shown(broker)) == ["e3", "e1"]
    await refused(got(broker, event_id="e2"), NOT_FOUND, "DEAD_LETTER_NOT_FOUND")


async def test_a_redrive_may_be_limited_in_number_and_in_pace(broker: Client, graves: Graveyard) -> None:
    answer = await redriven(broker, filter=ALL, max_events=2, events_per_second=0.1)
    assert (answer.redriven, answer.remaining) == (2, 1)
    first, second = await graves.retries()
    assert (first["event_id"], second["event_id"]) == ("e1", "e2")
    assert (second["due_at"] - first["due_at"]).total_seconds() == 10


async def test_a_dry_run_counts_and_changes_nothing(broker: Client, graves: Graveyard) -> None:
    answer = await redriven(broker, filter=ALL, max_events=2, dry_run=True)
    assert (answer.redriven, answer.remaining) == (2, 1)
    assert (await deleted(broker, filter=ALL, dry_run=True)).deleted == 3
    assert await graves.dead() == ["e1", "e2", "e3"]
    assert await graves.retries() == []


async def test_a_redrive_of_a_named_event_that_is_no_dead_letter_names_it_and_moves_none(
    broker: Client, graves: Graveyard
) -> None:
    call = redriven(broker, filter=DeadLetterFilter(event_ids=["e1", "e4"]))
    refusal = await refused(call, NOT_FOUND, "DEAD_LETTER_NOT_FOUND")
    assert refusal.details["ErrorInfo"].metadata["event_ids"] == "e4"
    assert await graves.dead() == ["e1", "e2", "e3"]


async def test_what_is_deleted_is_forgotten_and_its_event_stays(broker: Client, graves: Graveyard) -> None:
    before = Timestamp()
    before.FromDatetime(after(120))
    assert (await deleted(broker, filter=DeadLetterFilter(dead_before=before))).deleted == 1
    assert ids(await shown(broker)) == ["e3", "e2"]
    assert (await broker.get_event("e1")).event_id == "e1"


@pytest.mark.parametrize("call", CALLS)
async def test_dead_letters_of_a_tenant_never_show_for_the_group_of_all_tenants(
    broker: Client, graves: Graveyard, call: Callable[..., Awaitable[Any]]
) -> None:
    fields = NEEDED[call] | {"tenant_id": ""} | ({"event_tenant_id": "acme"} if call is got else {})
    if call is got:
        await refused(call(broker, **fields), NOT_FOUND, "DEAD_LETTER_NOT_FOUND")
    else:
        assert not (await call(broker, **fields)).ListFields()
    assert await graves.dead() == ["e1", "e2", "e3"]


async def test_a_group_of_all_tenants_wants_to_know_whose_event_is_meant(broker: Client, graves: Graveyard) -> None:
    await graves.bury(EVERYBODY, "e4", after(0))
    named = DeadLetterFilter(event_ids=["e4"], event_tenant_id="acme")
    assert ids(await shown(broker, tenant_id="", filter=named)) == ["e4"]
    assert (await got(broker, tenant_id="", event_tenant_id="acme", event_id="e4")).event.tenant_id == "acme"
    refusal = await refused(got(broker, tenant_id="", event_id="e4"), INVALID, "INVALID_ARGUMENT")
    assert refusal.violations.keys() == {"event_tenant_id"}
    named.ClearField("event_tenant_id")
    for call in (shown, redriven, deleted):
        refusal = await refused(call(broker, tenant_id="", filter=named), INVALID, "INVALID_ARGUMENT")
        assert refusal.violations.keys() == {"filter.event_tenant_id"}


@pytest.mark.parametrize("call", CALLS)
async def test_a_group_that_does_not_exist_is_not_found(
    broker: Client, graves: Graveyard, call: Callable[..., Awaitable[Any]]
) -> None:
    for fields in ({"group": "nobody"}, {"tenant_id": "globex"}):
        await refused(call(broker, **NEEDED[call] | fields), NOT_FOUND, "GROUP_NOT_FOUND")


async def test_what_is_past_its_retention_goes_by_itself(
    make_broker: Callable[..., Awaitable[Client]], broker: Client, graves: Graveyard
) -> None:
    await graves.postgres.execute(
        "UPDATE eventbroker.groups SET dead_letter_retention = extract(epoch FROM now() - $1)", after(150)
    )
    await make_broker(dead_letter_purge_interval=0.05)

    async def purged() -> bool:
        return ids(await shown(broker)) == ["e3"]

    await eventually(purged)
    await graves.bury(KEY, "e1", after(60))  # later than the first look
    await eventually(purged)
    assert (await broker.get_event("e1")).event_id == "e1"


Faults = dict[str, str]
TIME = "from 0001-01-01T00:00:00Z"

BAD_FILTERS: list[tuple[DeadLetterFilter, Faults]] = [
    (DeadLetterFilter(all=True, event_types=["a"]), {"all": "must stand alone"}),
    (
        DeadLetterFilter(event_types=["user.*", "User", ""]),
        {"event_types[1]": "wildcard", "event_types[2]": "wildcard"},
    ),
    (DeadLetterFilter(event_types=["a"] * 101), {"event_types": "at most 100"}),
    (DeadLetterFilter(aggregate_type="a b"), {"aggregate_type": NAME}),
    (DeadLetterFilter(aggregate_id="u1"), {"aggregate_type": "is required with aggregate_id"}),
    (DeadLetterFilter(aggregate_type="User", aggregate_id="a\n"), {"aggregate_id": ID}),
    (DeadLetterFilter(event_tenant_id="*"), {"event_tenant_id": NAME}),
    (DeadLetterFilter(event_ids=["e1", "", "a\0"]), {"event_ids[1]": ID, "event_ids[2]": ID}),
    (DeadLetterFilter(event_ids=["a"] * 1001), {"event_ids": "at most 1000"}),
    (DeadLetterFilter(reason_contains="a\0b"), {"reason_contains": ID}),
    (DeadLetterFilter(reason_contains="x" * 257), {"reason_contains": ID}),
    (DeadLetterFilter(dead_after=Timestamp(seconds=-62_135_596_801)), {"dead_after": TIME}),
    (DeadLetterFilter(dead_before=Timestamp(nanos=-1)), {"dead_before": TIME}),
    (
        DeadLetterFilter(aggregate_id="\n", event_types=["*."], dead_before=Timestamp(seconds=253_402_300_800)),
        {"aggregate_id": ID, "aggregate_type": "is required", "event_types[0]": "wildcard", "dead_before": TIME},
    ),
]
RATE = "must be 0.1 to 100000, or 0"
BAD_CALLS: list[tuple[Any, dict[str, Any], Faults]] = [
    *((call, {"group": bad}, {"group": NAME}) for call in CALLS for bad in ("", "a b", "x" * 129, "*")),
    *((call, {"tenant_id": bad}, {"tenant_id": NAME}) for call in CALLS for bad in ("a b", "*", "x" * 129)),
    *((shown, {"page_size": bad}, {"page_size": "1 to 1000"}) for bad in (-1, 1001)),
    *((redriven, {"max_events": bad}, {"max_events": "1 to 100000"}) for bad in (-1, 100_001)),
    *(
        (redriven, {"events_per_second": bad}, {"events_per_second": RATE})
        for bad in (-1.0, 0.09, 100_001.0, float("inf"), float("nan"))
    ),
    *((got, {"event_id": bad}, {"event_id": ID}) for bad in ("", "a\n", "x" * 257)),
    (got, {"event_tenant_id": "*"}, {"event_tenant_id": NAME}),
    *((call, {"filter": None}, {"filter.all": "must be set"}) for call in (redriven, deleted)),
    *((call, {"filter": DeadLetterFilter()}, {"filter.all": "must be set"}) for call in (redriven, deleted)),
    *(
        (call, {"filter": bad}, {f"filter.{path}": rule for path, rule in faults.items()})
        for call in (shown, redriven, deleted)
        for bad, faults in BAD_FILTERS
    ),
    (
        redriven,
        {"group": "", "filter": DeadLetterFilter(), "max_events": -1, "events_per_second": -1.0},
        {"group": NAME, "filter.all": "must be set", "max_events": "1 to", "events_per_second": RATE},
    ),
]


async def test_each_bad_field_is_named_and_nothing_is_changed(broker: Client, graves: Graveyard) -> None:
    for call, fields, faults in BAD_CALLS:
        refusal = await refused(call(broker, **NEEDED[call] | fields), INVALID, "INVALID_ARGUMENT")
        assert refusal.violations.keys() == faults.keys(), (call, fields)
        for path, rule in faults.items():
            assert rule in refusal.violations[path], (call, fields)
    assert await graves.dead() == ["e1", "e2", "e3"]
    assert await graves.retries() == []

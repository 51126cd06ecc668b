"""Aggregates and their snapshots, as callers see them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc
import pytest
from eventbroker.events.v1.user_pb2 import UserCreated
from eventbroker.v1 import event_store_service_pb2 as pb
from eventbroker.v1.event_pb2 import Binary
from eventbroker_server import app
from eventbroker_server.domain.principal import Principal, Role
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.timestamp_pb2 import Timestamp

from tests.acceptance.refused import refused
from tests.client import TIMEOUT, event, ids

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from tests.client import Client

MEBI = 1 << 20
U1: dict[str, Any] = {"aggregate_type": "User", "aggregate_id": "u1"}
NOT_FOUND = grpc.StatusCode.NOT_FOUND
OUT_OF_RANGE = grpc.StatusCode.OUT_OF_RANGE
FAILED_PRECONDITION = grpc.StatusCode.FAILED_PRECONDITION


async def rebuilt(broker: Client, **fields: Any) -> pb.GetAggregateResponse:
    request = pb.GetAggregateRequest(**({"tenant_id": "acme"} | U1 | fields))
    return await broker.event_store.GetAggregate(request, timeout=TIMEOUT)


async def save(broker: Client, version: int, tenant_id: str = "acme", **fields: Any) -> Timestamp:
    said = U1 | ({} if {"message", "binary"} & fields.keys() else {"json": f'{{"v": {version}}}'}) | fields
    request = pb.SaveSnapshotRequest(tenant_id=tenant_id, snapshot=pb.Snapshot(version=version, **said))
    return (await broker.event_store.SaveSnapshot(request, timeout=TIMEOUT)).create_time


async def snapshot(broker: Client, **fields: Any) -> pb.Snapshot:
    request = pb.GetSnapshotRequest(**({"tenant_id": "acme"} | U1 | fields))
    return (await broker.event_store.GetSnapshot(request, timeout=TIMEOUT)).snapshot


async def listed(broker: Client, **fields: Any) -> pb.ListSnapshotsResponse:
    request = pb.ListSnapshotsRequest(**({"tenant_id": "acme"} | U1 | fields))
    return await broker.event_store.ListSnapshots(request, timeout=TIMEOUT)


async def history(broker: Client, count: int = 5, **fields: Any) -> list[str]:
    """Publish so many events of the user u1, one by one; their ids."""
    events = [event(aggregate_id="u1", **fields) for _ in range(count)]
    for each in events:
        await broker.publish(each)
    return ids(events)


def versions(response: pb.GetAggregateResponse) -> tuple[int, int, list[int], int]:
    """Where the aggregate is, its snapshot (0: none), its events, and the first that found no room."""
    events = [each.aggregate_version for each in response.events]
    return response.aggregate.version, response.snapshot.version, events, response.next_version


# Rebuilding.


async def test_an_aggregate_is_answered_with_its_snapshot_and_the_events_after_it(broker: Client) -> None:
    published = await history(broker)
    saved_at = await save(broker, 3)
    response = await rebuilt(broker)
    assert versions(response) == (5, 3, [4, 5], 0)
    assert ids(response.events) == published[3:]
    assert response.events[1] == await broker.get_event(published[4])
    last = response.events[1]
    assert response.aggregate == pb.Aggregate(**U1, version=5, position=5, record_time=last.record_time)
    assert response.snapshot == pb.Snapshot(**U1, version=3, json='{"v": 3}', create_time=saved_at)


async def test_an_aggregate_without_a_snapshot_is_its_events(broker: Client) -> None:
    await history(broker)
    response = await rebuilt(broker)
    assert versions(response) == (5, 0, [1, 2, 3, 4, 5], 0)
    assert not response.HasField("snapshot")
    await save(broker, 5)
    assert versions(await rebuilt(broker, without_snapshot=True)) == (5, 0, [1, 2, 3, 4, 5], 0)
    assert versions(await rebuilt(broker)) == (5, 5, [], 0)


async def test_an_aggregate_is_answered_as_of_a_version(broker: Client) -> None:
    await history(broker)
    await save(broker, 3)
    assert [versions(await rebuilt(broker, as_of_version=version)) for version in range(1, 6)] == [
        (1, 0, [1], 0),
        (2, 0, [1, 2], 0),
        (3, 3, [], 0),
        (4, 3, [4], 0),
        (5, 3, [4, 5], 0),
    ]
    then = (await rebuilt(broker, as_of_version=2)).aggregate
    assert (then.version, then.position) == (2, 2)


async def test_an_aggregate_is_answered_as_of_a_time(broker: Client) -> None:
    published = await history(broker, 3)
    await save(broker, 2)
    times = [(await broker.get_event(each)).record_time for each in published]
    assert [versions(await rebuilt(broker, as_of_time=time))[:3] for time in times] == [
        (1, 0, [1]),
        (2, 2, []),
        (3, 2, [3]),
    ]
    within = Timestamp(seconds=times[1].seconds, nanos=times[1].nanos + 999)
    assert (await rebuilt(broker, as_of_time=within)).aggregate.version == 2
    before = Timestamp(seconds=times[0].seconds - 1)
    await refused(rebuilt(broker, as_of_time=before), NOT_FOUND, "AGGREGATE_NOT_FOUND")


async def test_a_version_to_come_is_out_of_range_and_the_actual_one_is_named(broker: Client) -> None:
    await history(broker, 2)
    refusal = await refused(rebuilt(broker, as_of_version=3), OUT_OF_RANGE, "VERSION_BEYOND")
    assert dict(refusal.details["ErrorInfo"].metadata) == U1 | {"asked": "3", "actual": "2"}


async def test_events_without_room_are_told_of_by_the_version_of_the_first(broker: Client) -> None:
    await history(broker)
    assert versions(await rebuilt(broker, max_events=2)) == (5, 0, [1, 2], 3)
    await save(broker, 2)
    assert versions(await rebuilt(broker, max_events=2)) == (5, 2, [3, 4], 5)
    assert versions(await rebuilt(broker, max_events=2, as_of_version=4)) == (4, 2, [3, 4], 0)


async def test_an_answer_of_many_bytes_fits_what_a_client_takes(broker: Client) -> None:
    """Clients take messages of 4 MiB, as long as nobody tells them otherwise."""
    await history(broker, 6, binary=Binary(content_type="text/plain", content=b"x" * (MEBI - 500)), user_id="ü" * 100)
    assert versions(await rebuilt(broker)) == (6, 0, [1, 2, 3, 4], 5)
    await save(broker, 1, binary=Binary(content_type="text/plain", content=b"x" * MEBI))
    response = await rebuilt(broker)
    assert versions(response) == (6, 1, [2, 3, 4], 5)
    assert response.ByteSize() <= 4 * MEBI


async def test_many_small_events_with_much_beside_their_data_fit_too(broker: Client) -> None:
    attributes = {"attributes": {f"a{number}": "x" * 4096 for number in range(60)}}
    await history(broker, 20, metadata=attributes)
    response = await rebuilt(broker)
    said = versions(response)
    assert said == (20, 0, list(range(1, said[3])), said[3])
    assert 3 * MEBI < response.ByteSize() <= 4 * MEBI


# Snapshots.

FORMS: list[dict[str, Any]] = [
    {"json": '{"b":  1, "a": "\\u0000"}'},
    {"binary": Binary(content_type="application/avro", content=bytes(range(256)))},
    {"message": AnyMessage(type_url="example.org/State")},
]


@pytest.mark.parametrize("data", FORMS, ids=lambda data: next(iter(data)))
async def test_a_snapshot_comes_back_byte_for_byte(broker: Client, data: dict[str, Any]) -> None:
    await history(broker, 1)
    saved_at = await save(broker, 1, create_time=Timestamp(seconds=1), **data)
    assert await snapshot(broker) == pb.Snapshot(**U1, version=1, create_time=saved_at, **data)
    assert (await rebuilt(broker)).snapshot == await snapshot(broker)


async def test_a_typed_snapshot_comes_back_as_its_message(broker: Client) -> None:
    await history(broker, 1)
    state = AnyMessage()
    state.Pack(UserCreated(email="a@example.com"))
    await save(broker, 1, message=state)
    found = UserCreated()
    assert (await snapshot(broker)).message.Unpack(found)
    assert found.email == "a@example.com"


async def test_a_later_snapshot_of_the_same_version_overrules(broker: Client) -> None:
    await history(broker, 1)
    await save(broker, 1)
    await save(broker, 1, json="2")
    assert (await snapshot(broker)).json == "2"
    assert len((await listed(broker)).snapshots) == 1


async def test_the_latest_snapshot_up_to_a_version_is_answered(broker: Client) -> None:
    await history(broker)
    await save(broker, 4)
    await save(broker, 2)
    assert [(await snapshot(broker, max_version=most)).version for most in (0, 5, 4, 3, 2)] == [4, 4, 4, 2, 2]
    await refused(snapshot(broker, max_version=1), NOT_FOUND, "SNAPSHOT_NOT_FOUND")


async def test_a_snapshot_ahead_of_its_aggregate_is_refused_and_not_stored(broker: Client) -> None:
    await history(broker, 2)
    for version, actual, aggregate in ((3, "2", "u1"), (1, "0", "nobody")):
        call = save(broker, version, aggregate_id=aggregate)
        refusal = await refused(call, FAILED_PRECONDITION, "SNAPSHOT_AHEAD")
        said = refusal.details["ErrorInfo"].metadata
        assert (said["aggregate_id"], said["asked"], said["actual"]) == (aggregate, str(version), actual)
        await refused(snapshot(broker, aggregate_id=aggregate), NOT_FOUND, "SNAPSHOT_NOT_FOUND")


async def test_snapshots_are_listed_page_by_page_the_latest_first_without_data(broker: Client) -> None:
    await history(broker)
    saved_at = {version: await save(broker, version) for version in range(1, 6)}
    found: list[pb.Snapshot] = []
    token = ""
    for size in (2, 2, 1):
        page = await listed(broker, page_size=2, page_token=token)
        assert len(page.snapshots) == size
        found += page.snapshots
        token = page.next_page_token
    assert token == ""
    assert found == [pb.Snapshot(**U1, version=v, create_time=saved_at[v]) for v in (5, 4, 3, 2, 1)]
    assert list((await listed(broker, aggregate_id="nobody")).snapshots) == []


async def test_the_limit_of_a_snapshot_is_a_setting(make_broker: Callable[..., Awaitable[Client]]) -> None:
    broker = await make_broker(max_snapshot_bytes=10)
    await history(broker, 1)
    await save(broker, 1, json='"12345678"')
    refusal = await refused(save(broker, 1, json='"123456789"'), grpc.StatusCode.INVALID_ARGUMENT, "INVALID_ARGUMENT")
    assert refusal.violations == {"snapshot.json": "must be at most 10 bytes, not 11"}


async def test_snapshots_are_kept_over_a_restart(make_broker: Callable[..., Awaitable[Client]]) -> None:
    await history(await make_broker(), 2)
    saved_at = await save(await make_broker(), 2)
    assert (await snapshot(await make_broker())).create_time == saved_at


# Bad input.

ID = "must be 1 to 256 characters without control characters"
NAME = "must be 1 to 128 characters of"


def bad_calls(broker: Client) -> list[tuple[Awaitable[object], dict[str, str]]]:
    """Calls, and the rules that they break."""
    nobody = {"tenant_id": "a b", "aggregate_type": "", "aggregate_id": "a\n"}
    named = {"tenant_id": NAME, "aggregate_type": NAME, "aggregate_id": ID}
    binary = Binary(content_type="", content=b"x" * (MEBI + 1))
    return [
        (rebuilt(broker, **nobody, as_of_version=0, max_events=-1), named | {"as_of_version": "1", "max_events": "1"}),
        (rebuilt(broker, tenant_id="", as_of_version=-1), {"tenant_id": NAME, "as_of_version": "must be at least 1"}),
        (rebuilt(broker, as_of_time=Timestamp(nanos=-1), max_events=1001), {"as_of_time": "nanos", "max_events": "1"}),
        (snapshot(broker, **nobody, max_version=-1), named | {"max_version": "must not be negative"}),
        (listed(broker, **nobody, page_size=1001), named | {"page_size": "must be from 1 to 1000"}),
        (listed(broker, page_token="x"), {"page_token": "must be a next_page_token"}),  # noqa: S106 - of a page
        (
            save(broker, 0, "a b", aggregate_type="", aggregate_id="", json="{"),
            {
                "tenant_id": NAME,
                "snapshot.version": "must be at least 1",
                "snapshot.aggregate_type": NAME,
                "snapshot.aggregate_id": ID,
                "snapshot.json": "must be well-formed JSON",
            },
        ),
        (save(broker, -1), {"snapshot.version": "must be at least 1"}),
        (save(broker, 1, json="[" * 65 + "]" * 65), {"snapshot.json": "64 levels"}),
        (save(broker, 1, json=f'"{"x" * MEBI}"'), {"snapshot.json": f"must be at most {MEBI} bytes"}),
        (save(broker, 1, binary=binary), {"snapshot.binary.content_type": ID, "snapshot.binary": "must be at most"}),
        (save(broker, 1, binary=Binary(content_type="a/b")), {"snapshot.binary.content": "must not be empty"}),
        (save(broker, 1, message=AnyMessage(type_url="T")), {"snapshot.message.type_url": "must name a type"}),
        (
            broker.event_store.SaveSnapshot(pb.SaveSnapshotRequest(tenant_id="acme"), timeout=TIMEOUT),
            {
                "snapshot.version": "must be at least 1",
                "snapshot.aggregate_type": NAME,
                "snapshot.aggregate_id": ID,
                "snapshot.data": "is required",
            },
        ),
    ]


async def test_each_bad_field_is_named_and_nothing_is_stored(broker: Client) -> None:
    await history(broker, 1)
    for call, faults in bad_calls(broker):
        found = (await refused(call, grpc.StatusCode.INVALID_ARGUMENT, "INVALID_ARGUMENT")).violations
        assert found.keys() == faults.keys()
        assert all(rule in found[path] for path, rule in faults.items()), found
    assert list((await listed(broker)).snapshots) == []


async def test_a_page_token_serves_the_list_that_it_was_made_for_only(broker: Client) -> None:
    await history(broker, 2)
    for version in (1, 2):
        await save(broker, version)
    token = (await listed(broker, page_size=1)).next_page_token
    call = listed(broker, aggregate_id="u2", page_token=token)
    refusal = await refused(call, grpc.StatusCode.INVALID_ARGUMENT, "INVALID_ARGUMENT")
    assert refusal.violations.keys() == {"page_token"}


# Whose they are.


async def test_an_aggregate_that_has_no_event_is_not_found(broker: Client) -> None:
    await history(broker)
    for other in ({"aggregate_id": "u2"}, {"aggregate_type": "Session"}, {"tenant_id": "other"}):
        await refused(rebuilt(broker, **other), NOT_FOUND, "AGGREGATE_NOT_FOUND")
        await refused(rebuilt(broker, **other, as_of_version=9), NOT_FOUND, "AGGREGATE_NOT_FOUND")


class Acme:
    """Takes every caller for the tenant acme."""

    loopback_only = True

    async def authenticate(self, metadata: Mapping[str, str]) -> Principal:
        return Principal("acme's", frozenset(Role), "acme")


@pytest.fixture
async def acmes(
    broker: Client, make_broker: Callable[..., Awaitable[Client]], monkeypatch: pytest.MonkeyPatch
) -> Client:
    """A client of a broker of acme's, on the stores of `broker`."""
    monkeypatch.setattr(app, "OpenProvider", Acme)
    return await make_broker()


async def test_the_aggregates_of_another_tenant_are_as_if_they_were_not(broker: Client, acmes: Client) -> None:
    await history(broker, 1, tenant_id="other")
    await save(broker, 1, "other")
    for tenant in ("other", "acme"):  # here it is, and there is none
        for fields in ({}, {"as_of_version": 9}):
            await refused(rebuilt(acmes, tenant_id=tenant, **fields), NOT_FOUND, "AGGREGATE_NOT_FOUND")
        await refused(snapshot(acmes, tenant_id=tenant), NOT_FOUND, "SNAPSHOT_NOT_FOUND")
    denied = grpc.StatusCode.PERMISSION_DENIED
    await refused(listed(acmes, tenant_id="other"), denied, "TENANT_FORBIDDEN")
    await refused(save(acmes, 1, "other", json="2"), denied, "TENANT_FORBIDDEN")
    assert (await snapshot(broker, tenant_id="other")).json == '{"v": 1}'


async def test_a_caller_of_a_tenant_may_leave_it_out(acmes: Client) -> None:
    await history(acmes, 2)
    await save(acmes, 1, "")
    assert versions(await rebuilt(acmes, tenant_id="")) == (2, 1, [2], 0)
    assert (await snapshot(acmes, tenant_id="")).version == 1
    assert len((await listed(acmes, tenant_id="")).snapshots) == 1


async def test_the_brokers_own_tenant_takes_no_snapshots(broker: Client) -> None:
    await refused(save(broker, 1, "_broker"), grpc.StatusCode.PERMISSION_DENIED, "TENANT_FORBIDDEN")

"""`eventbroker publish`, with a true broker."""

from __future__ import annotations

import json
from asyncio.subprocess import PIPE
from typing import TYPE_CHECKING, Any

from eventbroker.events.v1.user_pb2 import UserCreated
from eventbroker.v1 import event_pb2
from eventbroker.v1 import event_store_service_pb2 as pb
from google.protobuf.any_pb2 import Any as Packed

from tests.client import event
from tests.waiting import eventually

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.command import Command
    from tests.client import Client
    from tests.polyglot.wire import Wire


async def stored(client: Client, tenant: str) -> list[event_pb2.Event]:
    return list((await client.event_store.ListEvents(pb.ListEventsRequest(tenant_id=tenant))).events)


def line(number: int, **fields: Any) -> str:
    told = {
        "event_type": "order.placed",
        "aggregate_type": "Order",
        "aggregate_id": f"o{number}",
        "data": {"n": number},
    }
    return json.dumps(told | fields) + "\n"


async def test_an_event_of_arguments_is_stored_as_it_was_told(
    eventbroker: Command, client: Client, tenant: str
) -> None:
    ended = await eventbroker.done(
        *("publish", "user.created", "User/a/b", '{"n": 10000000000000000001}', "--id", "e1", "--user", "u9"),
        *("--time", "2026-01-02T03:04:05.678901+01:00", "--tag", "eu", "--tag", "beta", "--attribute", "a=b=c"),
    )
    found = await client.get_event("e1", tenant)
    assert ended.out == f"e1 was stored: position {found.position:,}, version 1 of its aggregate\n"
    assert (found.event_type, found.aggregate_type, found.aggregate_id) == ("user.created", "User", "a/b")
    assert (found.json, found.user_id) == ('{"n": 10000000000000000001}', "u9")
    assert found.timestamp.ToJsonString() == "2026-01-02T02:04:05.678901Z"
    assert (list(found.metadata.tags), dict(found.metadata.attributes)) == (["eu", "beta"], {"a": "b=c"})


async def test_of_lines_those_that_are_wrong_are_named_and_the_others_stored(
    eventbroker: Command, client: Client, tenant: str
) -> None:
    lines = line(1) + "\n" + "nonsense\n" + line(4, aggregate_id="") + line(5, nope=1) + line(6).rstrip()
    ended = await eventbroker("publish", "--source", "cli", stdin=lines)
    assert (ended.code, ended.out) == (1, "2 events stored, 3 refused\n")
    complaints = ended.err.splitlines()
    assert complaints[0] == "eventbroker: line 3: no JSON: Expecting value at column 1"
    assert complaints[1] == "eventbroker: line 4: aggregate_id must be 1 to 256 characters without control characters"
    assert complaints[2].startswith("eventbroker: line 5: ")
    assert "nope" in complaints[2]
    found = await stored(client, tenant)
    assert [(each.aggregate_id, each.json, each.metadata.source) for each in found] == [
        ("o1", '{"n":1}', "cli"),
        ("o6", '{"n":6}', "cli"),
    ]


async def test_a_line_is_stored_before_the_next_one_comes(eventbroker: Command, client: Client, tenant: str) -> None:
    async with eventbroker.started("publish", "sensor.read", "Sensor/s1", "--lines", stdin=PIPE) as process:
        assert process.stdin
        for count in (1, 2):
            process.stdin.write(b"%d\n" % count)

            async def is_stored(count: int = count) -> bool:
                return [each.json for each in await stored(client, tenant)] == [f"{n}" for n in range(1, count + 1)]

            await eventually(is_stored, timeout=20)
        process.stdin.close()
        out, err = await process.communicate()
    assert (process.returncode, out, err) == (0, b"2 events stored\n", b"")


async def test_what_was_listed_is_published_again_as_it_was(eventbroker: Command, client: Client, tenant: str) -> None:
    typed, unknown = Packed(), Packed(type_url="type.example.com/shop.Sold", value=b"\x08\x01\xff")
    typed.Pack(UserCreated(email="ada@example.com"))
    binary = event_pb2.Binary(content_type="image/png", content=b"\x00\xff")
    await client.publish(
        event(tenant_id=tenant, json='{"big": 12345678901234567890, "ü": "\\u001b"}', user_id="ü"),
        event(tenant_id=tenant, message=typed),
        event(tenant_id=tenant, message=unknown, metadata=event_pb2.Metadata(tags=["a"], attributes={"k": "v"})),
        event(tenant_id=tenant, binary=binary),
    )
    listed = await eventbroker.done("events", "ls", "--oldest", "-o", "ndjson")
    assert "ada@example.com" in listed.out

    again = await eventbroker.done("publish", "-o", "ndjson", stdin=listed.out)
    assert [each["outcome"] for each in again.lines] == ["PUBLISH_OUTCOME_DUPLICATE"] * 4
    elsewhere = await eventbroker.done("publish", stdin=listed.out.replace(tenant, f"{tenant}-2"))
    assert elsewhere.out == "4 events stored\n"
    for one, other in zip(await stored(client, tenant), await stored(client, f"{tenant}-2"), strict=True):
        for each in (one, other):
            for own in ("tenant_id", "position", "record_time"):
                each.ClearField(own)
        assert one == other


async def test_an_expectation_that_does_not_hold_stores_nothing(
    eventbroker: Command, client: Client, tenant: str
) -> None:
    ended = await eventbroker("publish", "order.placed", "Order/o1", "--expect", "Order/o1=3")
    assert (ended.code, ended.out) == (4, "")
    assert ended.err == "eventbroker: Order/o1: expected 3, actual 0\n"
    assert await stored(client, tenant) == []


async def test_lines_that_belong_together_are_stored_all_or_none(
    eventbroker: Command, client: Client, tenant: str
) -> None:
    ended = await eventbroker("publish", "--all-or-none", stdin=line(1) + line(2, aggregate_id=""))
    assert (ended.code, ended.out) == (2, "")
    assert "events[1].aggregate_id" in ended.err
    assert await stored(client, tenant) == []


async def test_made_up_events_are_numbered_and_come_at_their_pace(
    eventbroker: Command, client: Client, tenant: str
) -> None:
    await eventbroker.done("publish", "a.b", "A/{n}", '{"n": {n}}', "--count", "4", "--rate", "10")
    found = await stored(client, tenant)
    assert [(each.aggregate_id, each.json) for each in found] == [(f"{n}", f'{{"n": {n}}}') for n in range(1, 5)]
    took = found[-1].record_time.ToDatetime() - found[0].record_time.ToDatetime()
    assert took.total_seconds() > 0.2


async def test_a_file_shows_its_progress_at_a_terminal(eventbroker: Command, tmp_path: Path) -> None:
    file = tmp_path / "events.ndjson"
    file.write_text("".join(line(number) for number in range(700)))
    async with eventbroker.at_terminal("publish", "-f", str(file)) as terminal:
        await terminal.shows("700 events stored")
        assert await terminal.ended() == 0
    assert "publishing" in terminal.seen
    assert "%" in terminal.seen


async def test_without_a_broker_the_lines_whose_outcome_is_not_known_are_named(eventbroker: Command) -> None:
    ended = await eventbroker("publish", "--url", "127.0.0.1:1", "--timeout", "0.3", stdin=line(1) + line(2))
    assert ended.code == 6
    assert ended.err.startswith("eventbroker: lines 1 to 2: no answer from 127.0.0.1:1")


async def test_lines_whose_answer_got_lost_are_stored_once(
    eventbroker: Command, client: Client, tenant: str, wire: Wire
) -> None:
    wire.lose_answer(b"known-id")  # the answer names it
    lines = line(1, event_id="known-id") + line(2)
    ended = await eventbroker.done("publish", stdin=lines, EVENTBROKER_URL=wire.target)
    assert ended.out == "0 events stored, 2 stored before\n"
    assert [each.aggregate_id for each in await stored(client, tenant)] == ["o1", "o2"]

"""`eventbroker events` and `aggregate`, with a true broker."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from eventbroker.v1 import event_pb2
from eventbroker.v1 import event_store_service_pb2 as pb

from tests.client import event

if TYPE_CHECKING:
    from tests.cli.command import Command
    from tests.client import Client


async def test_events_are_listed_by_what_is_known_of_them(eventbroker: Command, client: Client, tenant: str) -> None:
    metadata = event_pb2.Metadata(tags=["eu"])
    await client.publish(
        *(event(event_id=f"e{number}", tenant_id=tenant, user_id=f"u{number % 2}") for number in range(600)),
        event(event_id="other", tenant_id=tenant, event_type="order.placed", metadata=metadata),
    )
    every = await eventbroker.done("events", "ls", "user.*", "--user", "u1", "-n", "0", "-o", "json")
    assert [each["event_id"] for each in every.json] == [f"e{number}" for number in range(599, 0, -2)]
    first = await eventbroker.done("events", "ls", "--oldest", "-n", "2")
    assert [line.split()[6] for line in first.out.splitlines()[1:]] == ["e0", "e1"]
    tagged = await eventbroker.done("events", "ls", "--tag", "eu", "--since", "1h", "-o", "ndjson")
    assert [each["event_id"] for each in tagged.lines] == ["other"]


async def test_foreign_text_does_nothing_to_a_terminal(eventbroker: Command, client: Client, tenant: str) -> None:
    nasty = event_pb2.Metadata(attributes={"k": "\x1b[2J\n\x9b31m"})
    await client.publish(event(event_id="e1", tenant_id=tenant, json='{"a": "\x9b31m"}', metadata=nasty))
    shown = await eventbroker.done("events", "show", "e1")
    assert "\x1b" not in shown.out
    assert "\x9b" not in shown.out
    assert r"\x1b[2J\n\x9b31m" in shown.out


async def test_the_tree_of_causes_is_drawn(eventbroker: Command, client: Client, tenant: str) -> None:
    def caused(event_id: str, by: str) -> event_pb2.Event:
        metadata = event_pb2.Metadata(caused_by=by)
        return event(event_id=event_id, tenant_id=tenant, aggregate_id=event_id, json="{}", metadata=metadata)

    await client.publish(caused("root", ""), caused("a", "root"), caused("a1", "a"), caused("b", "root"))
    drawn = await eventbroker.done("events", "tree", "a1")
    assert [line.partition("20")[0] + line.split()[-2] for line in drawn.out.splitlines()] == [
        "root",
        "├─ a",
        "│  └─ a1",
        "└─ b",
    ]


async def test_an_aggregate_is_shown_as_of_any_version(eventbroker: Command, client: Client, tenant: str) -> None:
    await client.publish(*(event(event_id=f"e{number}", tenant_id=tenant, aggregate_id="u1") for number in range(1, 5)))
    snapshot = pb.Snapshot(aggregate_type="User", aggregate_id="u1", version=2, json='{"state": 2}')
    await client.event_store.SaveSnapshot(pb.SaveSnapshotRequest(tenant_id=tenant, snapshot=snapshot))
    now = await eventbroker.done("aggregate", "User/u1")
    assert "version 2, " in now.out
    assert '{"state": 2}' in now.out
    assert [line.split()[6] for line in now.out.splitlines() if "user.created" in line] == ["e3", "e4"]
    then = await eventbroker.done("aggregate", "User/u1", "--at", "3", "--all", "-o", "json")
    assert [each["event_id"] for each in then.json["events"]] == ["e1", "e2", "e3"]
    listed = await eventbroker.done("aggregate", "User", "-o", "ndjson")
    assert [(each["aggregate_id"], each["version"]) for each in listed.lines] == [("u1", "4")]
    beyond = await eventbroker("aggregate", "User/u1", "--at", "9")
    assert (beyond.code, beyond.out) == (2, "")


async def test_an_aggregate_that_does_not_exist_is_not_found_and_one_that_does_has_a_list(
    eventbroker: Command, client: Client, tenant: str
) -> None:
    await client.publish(event(tenant_id=tenant, aggregate_id="u1"))
    for asked in (("aggregate",), ("aggregate", "--snapshots"), ("events", "of"), ("events", "of", "-o", "json")):
        ended = await eventbroker(*asked, "User/u2")
        assert (ended.code, ended.out) == (3, ""), asked
        assert re.fullmatch(r"eventbroker: The aggregate has no event.*u2.*\n", ended.err), ended.err
    for empty in (("events", "of", "--from", "2"), ("aggregate", "--snapshots")):
        assert (await eventbroker.done(*empty, "User/u1", "-o", "json")).json == []

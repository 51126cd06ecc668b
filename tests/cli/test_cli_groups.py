"""`eventbroker groups` and `dlq`, with a true broker: also that they ask before they destroy."""

from __future__ import annotations

from typing import TYPE_CHECKING

from eventbroker.v1 import subscriber_service_pb2 as pb

from tests.client import event
from tests.waiting import eventually

if TYPE_CHECKING:
    from tests.cli.command import Command
    from tests.client import Client


async def dead(client: Client, tenant: str, *event_ids: str) -> None:
    """Makes the group mailer, and events that it has given up."""
    await client.create_group("mailer", tenant_id=tenant)
    await client.publish(*(event(event_id=each, tenant_id=tenant) for each in event_ids))
    async with await client.subscribe("mailer", tenant_id=tenant) as stream:
        for delivery in await stream.take(len(event_ids)):
            reason = f"no mailbox for {delivery.event.event_id}"
            await client.nack([delivery.ack_id], pb.NACK_ACTION_DEAD_LETTER, reason=reason)


async def test_a_group_is_made_changed_and_moved(eventbroker: Command, client: Client, tenant: str) -> None:
    await client.publish(*(event(tenant_id=tenant, event_id=f"e{number}") for number in range(3)))
    made = await eventbroker.done(
        *("groups", "create", "billing", "user.*", "order.placed", "--ack-deadline", "1m30s", "--max-attempts", "3"),
        *("--backoff", "500ms", "--from", "latest", "--ordered", "--retention", "2d", "-o", "json"),
    )
    assert sorted(made.json["event_types"]) == ["order.placed", "user.*"]
    assert (made.json["ack_deadline"], made.json["ordering"]) == ("90s", "ORDERING_BY_AGGREGATE")
    assert made.json["retry_policy"]["initial_backoff"] == "0.500s"

    await eventbroker.done("groups", "update", "billing", "--multiplier", "3", "--tag", "eu")
    changed = (await client.get_group("billing", tenant)).group
    policy = changed.retry_policy
    assert (policy.max_attempts, policy.multiplier, policy.initial_backoff.nanos) == (3, 3.0, 500_000_000)
    assert (list(changed.tags), list(changed.event_types)) == (["eu"], made.json["event_types"])
    await eventbroker.done("groups", "update", "billing", "--reset", "tags")

    counted = await eventbroker.done("groups", "seek", "billing", "earliest", "--dry-run")
    assert counted.out == "3 events would be delivered again\n"
    moved = await eventbroker.done("groups", "seek", "billing", "1h", "-o", "json")
    assert moved.json == {"events_again": "3", "events_skipped": "0"}

    assert (await eventbroker.done("groups", "pause", "billing")).out == "billing is paused\n"
    explained = await eventbroker.done("groups", "explain", "billing", "e1")
    assert "history" in explained.out or "waiting" in explained.out
    assert "paused" in explained.out
    position = (await client.get_event("e2", tenant)).position
    assert (await eventbroker("groups", "wait", "billing", str(position), "--within", "0s")).code == 1


async def test_groups_are_shown_as_they_stand(eventbroker: Command, client: Client, tenant: str) -> None:
    await client.create_group("mailer", "user.*", tenant_id=tenant)
    await client.publish(*(event(tenant_id=tenant) for _ in range(3)))
    async with await client.subscribe("mailer", tenant_id=tenant, consumer_id="worker-1") as stream:
        await stream.take(3)

        async def is_told() -> str:
            out = (await eventbroker.done("groups", "show", "mailer")).out
            return out if "worker-1      3" in out else ""

        shown = await eventually(is_told, timeout=20)
        stats = await eventbroker.done("stats", "-o", "json")
    assert "event types        user.*" in shown
    assert "lag" in shown
    assert [(group["name"], group["tenant_id"]) for group in stats.json["groups"]] == [("mailer", tenant)]
    assert "yes" in shown.splitlines()[-1]


async def test_a_group_is_removed_only_when_the_answer_is_yes(
    eventbroker: Command, client: Client, tenant: str
) -> None:
    await dead(client, tenant, "e1")
    refused = await eventbroker("groups", "rm", "mailer")
    assert (refused.code, refused.out) == (2, "")
    assert "1 dead letter, 0 retries" in refused.err
    assert "--yes" in refused.err

    for answer, code in (("n\n", 1), ("y\n", 0)):
        async with eventbroker.at_terminal("groups", "rm", "mailer") as terminal:
            await terminal.shows("[y/N]")
            terminal.type(answer)
            assert await terminal.ended() == code, terminal.seen
        left = (await eventbroker.done("groups", "ls", "-o", "json")).json
        assert [group["name"] for group in left] == ["mailer"] * code


async def test_dead_letters_are_shown_redriven_and_forgotten(eventbroker: Command, client: Client, tenant: str) -> None:
    await dead(client, tenant, "e1", "e2", "e3")
    listed = await eventbroker.done("dlq", "ls", "mailer", "--reason", "for e2")
    assert [line.split()[-1] for line in listed.out.splitlines()[1:]] == ["e2"]
    shown = await eventbroker.done("dlq", "show", "mailer", "e2")
    assert "a consumer rejected it" in shown.out
    assert "no mailbox for e2" in shown.out

    assert (await eventbroker("dlq", "redrive", "mailer")).code == 2
    counted = await eventbroker.done("dlq", "redrive", "mailer", "--all", "--max", "1", "--dry-run")
    assert counted.out == "1 dead letter would be delivered again, 2 would be left\n"
    moved = await eventbroker.done("dlq", "redrive", "mailer", "e1", "-o", "ndjson")
    assert moved.lines == [{"redriven": "1", "remaining": "0"}]
    missing = await eventbroker("dlq", "redrive", "mailer", "e1")
    assert missing.code == 3
    assert "e1" in missing.err

    counted = await eventbroker.done("dlq", "rm", "mailer", "--all", "--dry-run")
    assert counted.out == "2 dead letters would be gone\n"
    refused = await eventbroker("dlq", "rm", "mailer", "--all")
    assert (refused.code, refused.out) == (2, "")
    gone = await eventbroker.done("dlq", "rm", "mailer", "--all", "--yes")
    assert gone.out == "2 dead letters are gone\n"
    assert (await eventbroker.done("dlq", "ls", "mailer", "-o", "json")).json == []

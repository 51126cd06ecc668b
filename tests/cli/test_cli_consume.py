"""`eventbroker subscribe` and `tail`, with a true broker."""

from __future__ import annotations

import json
import signal
from typing import TYPE_CHECKING

from tests.client import event, ids
from tests.client import publish as published

if TYPE_CHECKING:
    from asyncio.subprocess import Process

    from tests.cli.command import Command
    from tests.client import Client
    from tests.polyglot.wire import Wire


async def interrupted(process: Process) -> tuple[int | None, str]:
    """Ctrl-C; how it ended, and what it complained of."""
    process.send_signal(signal.SIGINT)
    _, err = await process.communicate()
    return process.returncode, err.decode()


async def test_what_is_printed_with_ack_is_settled_and_the_end_is_the_end(
    eventbroker: Command, client: Client, tenant: str
) -> None:
    told = await published(client, 30, tenant_id=tenant)
    ended = await eventbroker.done("subscribe", "--group", "mailer", "--ack", "--exit-at-end", "-o", "ndjson")
    assert sorted(each["event"]["event_id"] for each in ended.lines) == sorted(told)
    status = (await client.get_group("mailer", tenant)).status
    assert [shard.lag for shard in status.shards] == [0]


async def test_without_ack_events_go_back_to_the_group_as_if_nothing_had_been(
    eventbroker: Command, client: Client, tenant: str
) -> None:
    told = await published(client, 2, tenant_id=tenant)
    ended = await eventbroker.done("subscribe", "--group", "mailer", "--count", "2")
    assert len(ended.out.splitlines()) == 2
    async with await client.subscribe("mailer", tenant_id=tenant) as stream:
        again = await stream.take(2)
    assert sorted(ids(again)) == sorted(told)
    assert [delivery.attempt for delivery in again] == [1, 1]


async def test_of_an_ephemeral_group_nothing_stays(eventbroker: Command, client: Client, tenant: str) -> None:
    await client.publish(event(tenant_id=tenant, event_type="a.b"), event(tenant_id=tenant, event_type="c.d"))
    ended = await eventbroker.done("subscribe", "a.*", "--from", "earliest", "--exit-at-end")
    (line,) = ended.out.splitlines()
    assert "  a.b  User/u-" in line
    assert (await eventbroker.done("groups", "ls", "-o", "json")).json == []


async def test_ctrl_c_ends_a_subscription_without_a_word(eventbroker: Command, client: Client, tenant: str) -> None:
    await published(client, 1, tenant_id=tenant)
    async with eventbroker.started("subscribe", "--from", "earliest", "-o", "ndjson") as process:
        assert process.stdout
        assert json.loads(await process.stdout.readline())["attempt"] == 1
        assert await interrupted(process) == (130, "")


async def test_a_reader_that_goes_away_ends_it_without_a_word(
    eventbroker: Command, client: Client, tenant: str
) -> None:
    await published(client, 1_000, tenant_id=tenant, json=json.dumps({"much": "x" * 200}))
    for output in ("table", "ndjson"):
        async with eventbroker.started("tail", "--after", "0", "-o", output) as process:
            assert process.stdout
            assert process.stderr
            await process.stdout.readline()
            process._transport.get_pipe_transport(1).close()  # type: ignore[attr-defined] # as `| head -1` does
            assert (await process.stderr.read(), await process.wait()) == (b"", 141)


async def test_tail_shows_the_last_events_and_then_those_that_come(
    eventbroker: Command, client: Client, tenant: str
) -> None:
    told = await published(client, 4, tenant_id=tenant)
    await published(client, 2, tenant_id=tenant, event_type="other")
    async with eventbroker.started("tail", "user.*", "--last", "2", "-o", "ndjson") as process:
        assert process.stdout
        seen = [json.loads(await process.stdout.readline())["event_id"] for _ in range(2)]
        told += await published(client, 1, tenant_id=tenant)
        seen.append(json.loads(await process.stdout.readline())["event_id"])
        assert seen == told[2:]
        assert await interrupted(process) == (130, "")


async def test_tail_of_all_tenants_reads_all_shards_and_ends_after_as_many_as_were_asked_for(
    eventbroker: Command, client: Client, tenant: str
) -> None:
    tenants = [f"{tenant}-{number}" for number in range(8)]  # on three shards
    for each in tenants:
        await published(client, 1, tenant_id=each, event_type=f"only.{tenant}")
    ended = await eventbroker.done("tail", f"only.{tenant}", "--after", "0", "--count", "8", EVENTBROKER_TENANT="")
    assert sorted(line.split()[2] for line in ended.out.splitlines()) == tenants


async def test_tail_misses_nothing_when_the_connection_breaks(
    eventbroker: Command, client: Client, tenant: str, wire: Wire
) -> None:
    async with eventbroker.started("tail", "-o", "ndjson", EVENTBROKER_URL=wire.target) as process:
        assert process.stdout
        told, seen = await published(client, 1, tenant_id=tenant), []
        for _ in range(3):
            seen.append(json.loads(await process.stdout.readline())["event_id"])
            wire.cut()
            told += await published(client, 1, tenant_id=tenant)
        seen.append(json.loads(await process.stdout.readline())["event_id"])
        assert seen == told
        code, complaint = await interrupted(process)
        assert code == 130
        assert "the connection broke" in complaint


async def test_a_subscription_comes_back_when_the_connection_breaks(
    eventbroker: Command, client: Client, tenant: str, wire: Wire
) -> None:
    arguments = ("subscribe", "--group", "mailer", "--ack", "-o", "ndjson")
    async with eventbroker.started(*arguments, EVENTBROKER_URL=wire.target) as process:
        assert process.stdout
        for _ in range(3):
            (told,) = await published(client, 1, tenant_id=tenant)
            while json.loads(await process.stdout.readline())["event"]["event_id"] != told:
                pass  # one whose ack was cut off comes again
            wire.cut()
        code, _ = await interrupted(process)
    assert code == 130

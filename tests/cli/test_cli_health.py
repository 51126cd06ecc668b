"""`top`, `doctor` and `bench`."""

from __future__ import annotations

import json
import signal
from typing import TYPE_CHECKING

from eventbroker.v1 import stats_service_pb2 as pb
from eventbroker.v1.subscriber_service_pb2 import NACK_ACTION_DEAD_LETTER
from eventbroker_cli.top import History, spark

from tests.client import ack_ids, publish

if TYPE_CHECKING:
    from tests.cli.command import Command
    from tests.client import Client
    from tests.conftest import BrokerProcess


def answer(**published: int) -> pb.GetStatsResponse:
    types = [pb.EventTypeStats(event_type=name, published=count) for name, count in published.items()]
    return pb.GetStatsResponse(event_types=types)


def test_rates_are_between_two_looks_and_none_is_below_nothing() -> None:
    history = History()
    history.add(answer(a=100), 10.0)
    assert history.rates == {}
    history.add(answer(a=150, b=8), 12.0)
    assert {name: rates.published for name, rates in history.rates.items()} == {"a": 25.0, "b": 4.0}
    history.add(answer(a=3), 13.0)  # started again
    assert history.rates["a"].published == 0.0
    assert list(history.published["a"]) == [25.0, 0.0]


def test_the_highest_bar_is_full() -> None:
    assert spark((0.0, 5.0, 10.0)) == "▁▅█"
    assert spark((0.0, 0.0)) == "▁▁"
    assert spark(()) == ""


async def test_top_prints_its_looks_in_a_pipe_and_keeps_a_terminal_until_it_is_interrupted(
    eventbroker: Command, served: BrokerProcess, client: Client, tenant: str
) -> None:
    await client.create_group("billing", tenant_id=tenant)
    await publish(client, 3, tenant_id=tenant)
    every = ("top", "--every", "0.2", "--tenant", "")
    out = (await eventbroker.done(*every, "--frames", "2")).out
    assert out.count("PUBLISHED/S") == 2
    assert "user.created" in out
    looks = (await eventbroker.done(*every, "--frames", "2", "-o", "ndjson")).lines
    assert ["user.created" in {each["event_type"] for each in look["event_types"]} for look in looks] == [True, True]
    async with eventbroker.at_terminal("top", "--every", "0.2") as terminal:
        await terminal.shows("billing")
        await terminal.shows(served.target)
        terminal.process.send_signal(signal.SIGINT)
        assert await terminal.ended() == 130


async def test_doctor_tells_what_is_wrong_and_what_to_do(
    eventbroker: Command, served: BrokerProcess, client: Client, tenant: str
) -> None:
    pages = ("--http", served.endpoints["http"])
    await client.create_group("billing", tenant_id=tenant)
    found = (await eventbroker.done("doctor", *pages, "-o", "json")).json
    assert {each["state"] for each in found} == {"ok"}
    assert {"broker: serving", "postgres: ok", "redis: ok"} < {each["what"] for each in found}

    await publish(client, 1, tenant_id=tenant)
    async with await client.subscribe("billing", tenant_id=tenant) as stream:
        await client.nack(ack_ids(await stream.take(1)), NACK_ACTION_DEAD_LETTER, reason="no")
    await eventbroker.done("groups", "pause", "billing")
    out = (await eventbroker.done("doctor", *pages)).out
    assert "billing is paused" in out
    assert f"eventbroker groups resume billing -t {tenant}" in out
    assert "billing has given up 1 event" in out


async def test_doctor_fails_where_no_broker_is(eventbroker: Command) -> None:
    ended = await eventbroker("doctor", "--url", "127.0.0.1:1", "--http", "http://127.0.0.1:1", "-o", "json")
    assert (ended.code, ended.err) == (1, "eventbroker: 1 wrong\n")
    assert [each["state"] for each in json.loads(ended.out)] == ["wrong", "warning"]
    assert "eventbroker serve" in json.loads(ended.out)[0]["todo"]


async def test_bench_measures_what_it_published_and_asks_before(eventbroker: Command, client: Client) -> None:
    for how in (("--batch", "20"), ("--batch", "1", "--consumers", "2")):
        found = (await eventbroker.done("bench", "--seconds", "0.5", *how, "--yes", "-o", "json")).json
        assert found["acked"] == found["published"] > 0
        assert 0 < found["publish_call_seconds"]["p50"] <= found["publish_call_seconds"]["p99"]
        status = (await client.get_group("bench", found["tenant"])).status
        assert sum(each.head_position > 0 for each in status.shards) >= 1
    out = (await eventbroker.done("bench", "--seconds", "0.2", "--consumers", "0", "--yes")).out
    assert "published per second" in out
    assert "acked" not in out
    ended = await eventbroker("bench")
    assert (ended.code, ended.out) == (2, "")
    assert "say --yes" in ended.err

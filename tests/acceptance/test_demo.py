"""The demo as people run it: it adds up on a true broker, and says so when something does not."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import sys
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
from redis.asyncio import Redis

from tests.acceptance.tampering import altered_event, lost_delivery, second_position, tampered
from tests.engines import engine_directory, engines_of
from tests.processes import spawned

if TYPE_CHECKING:
    from asyncio.subprocess import Process
    from collections.abc import AsyncIterator, Awaitable, Callable

    from tests.acceptance.tampering import Tamper
    from tests.client import Client
    from tests.conftest import BrokerProcess, Stores

# The timeout is below the ack deadline: what a killed consumer held must come back at once.
SMALL = ("--tenants", "10", "--users", "500", "--timeout", "12")
NOWHERE = "unix:///nonexistent/redis.sock"


@dataclass
class Ended:
    code: int
    out: str
    err: str


@asynccontextmanager
async def running_demo(*arguments: str, **environ: str) -> AsyncIterator[Process]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("EVENTBROKER_")}
    async with spawned(
        sys.executable, "-m", "eventbroker_cli.demo", *SMALL, *arguments,
        env=inherited | {"PYTHONPATH": os.pathsep.join(sys.path)} | environ,
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    ) as process:  # fmt: skip
        yield process


async def ended(process: Process, timeout: float = 45.0) -> Ended:
    async with asyncio.timeout(timeout):
        out, err = await process.communicate()
    assert process.returncode is not None
    return Ended(process.returncode, out.decode(), err.decode())


async def demo(*arguments: str, **environ: str) -> Ended:
    async with running_demo(*arguments, **environ) as process:
        return await ended(process)


async def said(process: Process, pattern: str) -> None:
    """Reads what a demo says until there is a line of the pattern."""
    assert process.stdout
    async with asyncio.timeout(30):
        async for line in process.stdout:
            if re.search(pattern, line.decode()):
                return
    raise AssertionError(f"it never said {pattern}")


async def test_a_day_adds_up_though_a_consumer_dies_and_redis_is_emptied(broker: Client, stores: Stores) -> None:
    run = await demo("--target", broker.target, "--redis-url", stores.redis, "--events", "3000")
    assert (run.code, run.err) == (0, ""), run.out
    assert "✓ Everything adds up." in run.out
    assert re.search(r"killed consumer audit-\d with [1-9]\d* deliveries unacked", run.out)
    assert re.search(r"emptied Redis of [1-9]\d* keys", run.out)
    assert re.search(r"^total +3,000 +3,000 ✓ +3,000 +3,000 +[1-9][\d,]* ✓", run.out, re.MULTILINE)
    assert "200 of 200 events are stored as they were published" in run.out


@pytest.mark.parametrize(
    ("tampering", "complaint"),
    [
        (lost_delivery, r"/ \S+ delivered: [\d,]+ instead of [\d,]+"),
        (second_position, r"1 twice"),
        (altered_event, r"sample: not stored as published: run-\d+, "),
    ],
    ids=["lost", "doubled", "altered"],
)
async def test_a_broker_that_does_not_keep_its_word_is_found_out(
    broker: Client, tampering: Callable[[], Tamper], complaint: str
) -> None:
    async with tampered(broker.target, tampering()) as target:
        run = await demo("--target", target, "--events", "500", "--run-id", "run", "--no-faults", "--timeout", "6")
    assert run.code == 1, run.out + run.err
    assert "✗ It does not add up:" in run.out
    assert re.search(complaint, run.out), run.out


async def test_redis_is_left_alone_unless_it_is_named(broker: Client, stores: Stores) -> None:
    async with Redis.from_url(stores.redis) as redis:
        await redis.set(f"{stores.prefix}:kept", "as it was")
        run = await demo("--target", broker.target, "--events", "500", EVENTBROKER_REDIS_URL=stores.redis)
        assert run.code == 0, run.out + run.err
        assert "Redis was not emptied: no --redis-url was given" in run.out
        assert await redis.get(f"{stores.prefix}:kept") == b"as it was"


async def test_a_run_whose_redis_cannot_be_emptied_proves_nothing(broker: Client) -> None:
    run = await demo("--target", broker.target, "--redis-url", NOWHERE, "--events", "500")
    assert run.code == 1, run.out + run.err
    assert "✗ It adds up, but it proves nothing:\n  Redis was not emptied: " in run.out


async def test_a_run_that_empties_a_redis_without_keys_proves_nothing(broker: Client) -> None:
    with engine_directory() as directory:
        async with engines_of("wheel", directory, postgres=False) as engines:
            assert engines.valkey
            run = await demo("--target", broker.target, "--redis-url", engines.valkey.url, "--events", "500")
    assert run.code == 1, run.out + run.err
    assert "✗ It adds up, but it proves nothing:\n  Redis held nothing" in run.out


async def test_a_broker_that_goes_for_good_ends_the_run_at_its_timeout(
    spawn_broker: Callable[..., Awaitable[BrokerProcess]],
) -> None:
    broker = await spawn_broker()
    async with running_demo("--target", broker.target, "--events", "1000000", "--timeout", "6") as process:
        await said(process, r" s  [1-9][\d,]*/1,000,000 published")
        await broker.kill()
        run = await ended(process, timeout=9)
    assert run.code == 1, run.out + run.err
    assert "not all was done within 6 s; the broker does not answer: UNAVAILABLE" in run.out


async def test_a_port_where_nobody_listens_is_told_in_one_line() -> None:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        target = f"127.0.0.1:{reserved.getsockname()[1]}"
        run = await demo("--target", target, "--timeout", "1")
    assert (run.code, run.out) == (2, "")
    assert re.fullmatch(rf"eventbroker-demo: no broker answers at {target} within 1 s \(UNAVAILABLE: .+\)\n", run.err)


async def test_a_run_id_that_was_used_before_is_told_in_one_line(broker: Client) -> None:
    arguments = ("--target", broker.target, "--events", "10", "--run-id", "twice", "--no-faults")
    assert (await demo(*arguments)).code == 0
    run = await demo(*arguments)
    assert (run.code, run.out) == (2, "")
    assert run.err == "eventbroker-demo: the run id twice was used before; choose another one\n"


async def test_without_a_target_it_has_a_broker_of_its_own_and_leaves_nothing() -> None:
    with engine_directory() as directory:
        run = await demo("--events", "500", TMPDIR=str(directory), EVENTBROKER_REDIS_URL=NOWHERE)
        assert run.code == 0, run.out + run.err
        assert "✓ Everything adds up." in run.out
        assert "emptied Redis of" in run.out
        assert list(directory.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
async def test_ended_by_a_signal_it_takes_its_own_broker_along(number: signal.Signals) -> None:
    with engine_directory() as directory:
        async with running_demo("--events", "1000000", TMPDIR=str(directory)) as process:
            await said(process, r" s  [1-9][\d,]*/1,000,000 published")
            process.send_signal(number)
            run = await ended(process)
        assert (run.code, run.err) == (130, "")
        assert list(directory.iterdir()) == []

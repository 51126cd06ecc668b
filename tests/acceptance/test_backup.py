"""Backup through the command line: what brokers had, others go on with."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from typing import TYPE_CHECKING

import pytest

from tests.client import Client, event, ids
from tests.conftest import ROOT, broker_process, stores_on
from tests.engines import engine_directory
from tests.processes import spawned
from tests.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from eventbroker_server.engines import Engines

    from tests.conftest import BrokerProcess, Stores


@pytest.fixture
async def other_stores(engines: Engines) -> AsyncIterator[Stores]:
    """Stores of another installation, with nothing in them."""
    async with stores_on(engines) as stores:
        yield stores


async def command(*arguments: str, **environ: str) -> tuple[int | None, bytes, str]:
    """Run `python -m eventbroker_server` with these; how it ended, and what it said and told."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("EVENTBROKER_")}
    async with spawned(
        *(sys.executable, "-m", "eventbroker_server", *arguments),
        env=inherited | {f"EVENTBROKER_{name}": value for name, value in environ.items()},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=ROOT,
    ) as process:
        out, told = await asyncio.wait_for(process.communicate(), 60)
        return process.returncode, out, told.decode()


async def test_a_group_goes_on_where_it_was_in_what_was_imported(
    make_broker: Callable[..., Awaitable[Client]], stores: Stores, other_stores: Stores, tmp_path: Path
) -> None:
    file = tmp_path / "backup.ndjson"
    published = [event() for _ in range(6)]
    broker = await make_broker()
    await broker.publish(*published)
    async with await broker.subscribe("billing") as stream:
        await stream.take_and_ack(2)
        (third,) = await stream.take(1)
        await broker.nack([third.ack_id], reason="not now", seconds=0.5)

    async def export_of_both_acks() -> bool:
        code, _, told = await command("export", str(file), POSTGRES_URL=stores.postgres)
        assert code == 0, told
        return b'"checkpoint":3' in file.read_bytes()

    await eventually(export_of_both_acks, timeout=40)
    assert file.stat().st_mode & 0o777 == 0o600
    assert b"not now" in file.read_bytes()

    code, _, told = await command("import", str(file), POSTGRES_URL=other_stores.postgres)
    assert code == 0, told
    settings = {"POSTGRES_URL": other_stores.postgres, "REDIS_URL": other_stores.redis}
    async with (
        broker_process(**settings, REDIS_PREFIX=other_stores.prefix) as other,
        Client(other.target) as client,
        await client.subscribe("billing") as stream,
    ):
        assert sorted(ids(await stream.take_and_ack(4))) == sorted(ids(published[2:]))
        (added,) = await client.publish(event())
        assert added.position == 7
        assert ids(await stream.take_and_ack(1)) == [added.event_id]


async def test_a_tenant_moves_into_an_installation_that_serves(
    make_broker: Callable[..., Awaitable[Client]],
    spawn_broker: Callable[..., Awaitable[BrokerProcess]],
    stores: Stores,
    other_stores: Stores,
    tmp_path: Path,
) -> None:
    broker = await make_broker()
    moving = [event(tenant_id="acme", aggregate_id="u1") for _ in range(3)]
    await broker.publish(event(tenant_id="other"))
    await broker.publish(*moving)
    code, lines, told = await command("export", "--tenant", "acme", POSTGRES_URL=stores.postgres)
    assert code == 0, told
    file = tmp_path / "acme.ndjson"
    file.write_bytes(lines)
    settings = {"POSTGRES_URL": other_stores.postgres, "REDIS_URL": other_stores.redis}
    target = await spawn_broker(**settings, REDIS_PREFIX=other_stores.prefix)
    async with Client(target.target) as client:
        before = event(tenant_id="globex")
        await client.publish(before)
        async with await client.subscribe("everything") as stream:
            assert ids(await stream.take_and_ack(1)) == [before.event_id]
            code, _, told = await command("import", str(file), POSTGRES_URL=other_stores.postgres)
            assert code == 0, told
            assert ids(await stream.take_and_ack(3)) == ids(moving)
            after = event(tenant_id="acme", aggregate_id="u1")
            (result,) = await client.publish(after)
            assert (result.position, result.aggregate_version) == (5, 4)
            assert ids(await stream.take_and_ack(1)) == [after.event_id]


async def test_what_a_command_cannot_do_is_told_in_a_line(stores: Stores, tmp_path: Path) -> None:
    file = tmp_path / "file"
    for arguments, expected in [
        (("export", str(file)), "eventbroker: there are no events in this database"),
        (("export", "--after-position", "x"), "eventbroker: --after-position must be whole numbers"),
        (("export", str(tmp_path / "none" / "file")), "file fails: "),
        (("import", str(file)), "file fails: "),
        (("import",), "eventbroker: line 1 is cut off"),
    ]:
        code, out, told = await command(*arguments, POSTGRES_URL=stores.postgres)
        assert (code, out) == (1, b"")
        assert expected in told.splitlines()[-1]
    assert os.listdir(tmp_path) == []


async def test_the_embedded_database_is_found_with_a_broker_and_without() -> None:
    with engine_directory() as directory:
        data = {"DATA_DIR": str(directory / "data")}
        async with broker_process(**data) as broker, Client(broker.target) as client:
            await client.publish(event())
            code, served, told = await command("export", **data)
            assert code == 0, told
            broker.signal(signal.SIGTERM)
            await broker.ended()
        code, alone, told = await command("export", **data)
        assert code == 0, told
        assert alone == served
        assert b'"specversion"' in served
        code, increment, told = await command("export", "--after-position", "1", **data)
        assert code == 0, told
        assert b'"after":{"0":1}' in increment
        assert b'"specversion"' not in increment

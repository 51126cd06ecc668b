"""The Java client is as its README says, and its own tests pass."""

from __future__ import annotations

import asyncio
import os
import re
import signal
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from tests.conftest import ROOT
from tests.processes import spawned

if TYPE_CHECKING:
    from asyncio.subprocess import Process
    from collections.abc import AsyncIterator

HERE = ROOT / "clients/java"
README = (HERE / "README.md").read_text()
CODE = [*HERE.glob("src/examples/java/**/*.java"), *HERE.glob("src/test/java/**/*.java")]

pytestmark = [pytest.mark.timeout(240), pytest.mark.xdist_group("clients")]  # they share what they build


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def plain(code: str) -> str:
    return "\n".join(line.strip() for line in code.splitlines())


def shown(out: bytes) -> str:
    """Without the escape sequences that Maven leaves even where there is no terminal."""
    return re.sub(r"\x1b\[0?m", "", out.decode())


@asynccontextmanager
async def command(line: str, environment: dict[str, str]) -> AsyncIterator[Process]:
    """In a group of its own, as a terminal starts it: Ctrl-C reaches all of it."""
    async with spawned(
        *line.partition("#")[0].split(),
        cwd=HERE,
        env=environment,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,
    ) as process:
        try:
            yield process
        finally:
            if process.returncode is None:
                os.killpg(process.pid, signal.SIGKILL)


async def output(line: str, environment: dict[str, str]) -> str:
    async with command(line, environment) as process:
        out, _ = await process.communicate()
    assert process.returncode == 0, out.decode()
    return out.decode()


def test_the_code_of_the_readme_is_that_of_the_examples_and_tests() -> None:
    all_code = [plain(file.read_text()) for file in CODE]
    for block in blocks("java"):
        assert any(plain(block).strip() in code for code in all_code), block


async def test_the_examples_run_as_the_readme_says(environment: dict[str, str]) -> None:
    publish, consume = [line for block in blocks("sh") for line in block.splitlines() if "examples" in line]
    published = await output(publish, environment)
    assert re.search("user.created is at position [0-9]+\nuser.status_changed is stored\n", published)
    async with command(consume, environment) as consumer:
        assert consumer.stdout
        lines = {shown(await consumer.stdout.readline()) for _ in range(2)}
        assert lines == {"welcome Ada\n", "now locked\n"}
        os.killpg(consumer.pid, signal.SIGINT)
        rest, _ = await consumer.communicate()
        assert shown(rest) == "drained\n", rest.decode()


async def test_its_own_tests_pass() -> None:
    (line,) = [line for block in blocks("sh") for line in block.splitlines() if "package" in line]
    await output(line, dict(os.environ))

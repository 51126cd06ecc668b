"""The Node client is as its README says, its package can be installed, and its own tests pass."""

from __future__ import annotations

import asyncio
import re
import signal
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from tests.conftest import ROOT
from tests.polyglot.runners import RUNNERS
from tests.processes import spawned

if TYPE_CHECKING:
    from asyncio.subprocess import Process
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from tests.polyglot.runners import Runner

HERE = ROOT / "clients/node"
README = (HERE / "README.md").read_text()
CODE = sorted({*HERE.glob("examples/*.ts"), *HERE.glob("test/*.ts")})

pytestmark = [pytest.mark.timeout(240), pytest.mark.xdist_group("clients")]  # they share what they build


@pytest.fixture(autouse=True)
def client(built: Callable[[Runner], None]) -> None:
    (runner,) = [runner for runner in RUNNERS if runner.language == "node"]
    built(runner)


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def plain(code: str) -> str:
    return "\n".join(line.strip() for line in code.splitlines())


@asynccontextmanager
async def command(
    line: str, environment: dict[str, str] | None = None, directory: Path = HERE
) -> AsyncIterator[Process]:
    async with spawned(
        *line.split(),
        cwd=directory,
        env=environment,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    ) as process:
        yield process


async def output(line: str, environment: dict[str, str] | None = None, directory: Path = HERE) -> str:
    async with command(line, environment, directory) as process:
        out, _ = await process.communicate()
    assert process.returncode == 0, out.decode()
    return out.decode()


OWN = """
import { atVersion, userCreated, type Client } from "@eventbroker/client";
import { type UserCreated } from "@eventbroker/client/events";
import { AggregateExpectationSchema } from "@eventbroker/client/v1";

export const first = async (client: Client, data: UserCreated): Promise<bigint> =>
  (await client.publish(userCreated("u1", data))).position;

const { expected } = atVersion("User", "u1", 7n) satisfies { $typeName: typeof AggregateExpectationSchema.typeName };
console.log(userCreated("u1", { email: "ada@example.com" }).eventType, String(expected.value));
"""

PUBLISHED = re.compile("user.created is at position [0-9]+\nuser.status_changed is stored\n")


def test_the_code_of_the_readme_is_that_of_the_examples_and_tests() -> None:
    all_code = [plain(file.read_text()) for file in CODE]
    for block in blocks("ts"):
        assert any(plain(block).strip() in code for code in all_code), block


async def test_the_examples_run_as_the_readme_says(environment: dict[str, str]) -> None:
    publish, consume = [line for block in blocks("sh") for line in block.splitlines() if "examples" in line]
    assert PUBLISHED.fullmatch(await output(publish, environment))
    async with command(consume, environment) as consumer:
        assert consumer.stdout
        lines = {(await consumer.stdout.readline()).decode() for _ in range(2)}
        assert lines == {"welcome Ada\n", "now locked\n"}
        consumer.send_signal(signal.SIGINT)
        rest, _ = await consumer.communicate()
        assert rest.decode() == "drained\n"
        assert consumer.returncode == 0


async def test_the_package_serves_a_project_of_its_own(tmp_path: Path) -> None:
    packed = tmp_path / (await output(f"npm pack --silent --ignore-scripts --pack-destination {tmp_path}")).strip()
    project = tmp_path / "project"
    project.mkdir()
    (project / "package.json").write_text('{"type": "module"}')
    install = "npm install --no-package-lock --no-audit --no-fund --ignore-scripts --prefer-offline"
    await output(f"{install} {packed}", directory=project)
    installed = project / "node_modules/@eventbroker/client"
    assert {file.name for file in installed.iterdir()} == {"package.json", "README.md", "dist"}
    assert {file.name for file in installed.glob("dist/*")} == {"src"}
    (project / "own.ts").write_text(OWN)
    compiler = f"node {HERE}/node_modules/typescript/bin/tsc --strict --target es2022 --module nodenext"
    await output(f"{compiler} --types node --typeRoots {HERE}/node_modules/@types own.ts", directory=project)
    assert await output("node own.js", directory=project) == "user.created 7\n"


async def test_its_own_checks_and_tests_pass() -> None:
    (line,) = [line for block in blocks("sh") for line in block.splitlines() if "npm test" in line]
    for each in line.split(" && "):
        await output(each)

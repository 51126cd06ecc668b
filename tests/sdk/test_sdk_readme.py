"""The SDK's README: its quick start runs as it is written, and so do its examples, one after the other."""

from __future__ import annotations

import ast
import asyncio
import inspect
import os
import re
import sys
from typing import TYPE_CHECKING, Any

import pytest
from eventbroker_client import connect
from eventbroker_client.connection.address import VARIABLE

from tests.client import TIMEOUT
from tests.conftest import ROOT
from tests.processes import spawned

if TYPE_CHECKING:
    from tests.client import Client

EXAMPLES, (FRONT_PAGE,) = (
    re.findall(r"```python\n(.*?)```", (ROOT / file).read_text(), re.DOTALL)
    for file in ("clients/python/README.md", "README.md")
)


@pytest.mark.parametrize("example", [EXAMPLES[0], FRONT_PAGE], ids=["SDK", "front page"])
async def test_the_quick_start_welcomes_ada(broker: Client, example: str) -> None:
    environ = os.environ | {VARIABLE: broker.target, "PYTHONPATH": str(ROOT / "clients/python")}
    pipe = asyncio.subprocess.PIPE
    program = example.replace("127.0.0.1:50051", broker.target)
    async with spawned(sys.executable, "-c", program, env=environ, stdout=pipe, stderr=pipe) as process:
        async with asyncio.timeout(TIMEOUT):
            said, complained = await process.communicate()
    assert (said.decode(), complained.decode(), process.returncode) == ("Welcome, Ada!\n", "", 0)


async def test_each_example_runs_after_those_before_it(
    broker: Client, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, broker.target)
    async with connect(tenant="acme") as sdk:
        names: dict[str, Any] = {"broker": sdk, "__name__": "readme"}
        for number, example in enumerate(EXAMPLES[1:]):
            code = compile(example, f"example {number}", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
            async with asyncio.timeout(TIMEOUT):
                if inspect.iscoroutine(running := eval(code, names)):  # noqa: S307 - of this repository
                    await running
        await asyncio.to_thread(names["view"])
        async with names["consumer"]:
            pass
    assert "1 1 False" in capsys.readouterr().out

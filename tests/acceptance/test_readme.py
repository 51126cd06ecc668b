"""The commands of the README's "Publish and subscribe" run as they stand there, on a broker of another port."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shlex
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tests.client import event
from tests.conftest import ROOT
from tests.processes import spawned

if TYPE_CHECKING:
    from asyncio.subprocess import Process
    from contextlib import AbstractAsyncContextManager

    from tests.client import Client

PIPE = asyncio.subprocess.PIPE
PORT = "127.0.0.1:50051"
ACK_ID = "the ack_id of a delivery"
BIN = Path(sys.executable).parent
PROGRAMS = {
    ".venv/bin/eventbroker": f"{shlex.quote(sys.executable)} -m eventbroker_cli",
    ".venv/bin/buf": shlex.quote(shutil.which("buf") or str(BIN / "buf")),
}


def commands(program: str) -> list[str]:
    """Those of the block that uses a program."""
    blocks = re.findall(r"^```sh\n(.*?)^```$", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    (block,) = [block for block in blocks if re.search(rf"^{re.escape(program)} ", block, re.MULTILINE)]
    return re.split(r"\n(?=\S)", block.strip())


def run(command: str, broker: Client, **environ: str) -> AbstractAsyncContextManager[Process]:
    for written, here in {PORT: broker.target, **PROGRAMS}.items():
        command = command.replace(written, here)
    path = os.pathsep.join(filter(None, (str(ROOT / "server"), str(ROOT / "clients/python"))))
    own = {"PYTHONPATH": path, "EVENTBROKER_URL": broker.target}
    return spawned("bash", "-euc", command, env=os.environ | own | environ, stdout=PIPE, stderr=PIPE, cwd=ROOT)


async def output(command: str, broker: Client, **environ: str) -> str:
    async with run(command, broker, **environ) as process, asyncio.timeout(40):
        out, err = await process.communicate()
        assert process.returncode == 0, err.decode()
        return out.decode()


async def test_the_command_line_publishes_consumes_and_looks_at_groups(broker: Client, tmp_path: Path) -> None:
    script = "\n".join(commands(".venv/bin/eventbroker"))
    out = await output(script, broker, XDG_CONFIG_HOME=str(tmp_path))
    assert "position 1" in out
    assert "ada@example.com" in out
    assert re.search("mailer.*", out)
    assert (await broker.get_group("mailer", "acme")).status.shards[0].head_position == 1


async def test_buf_gets_an_event(broker: Client) -> None:
    await broker.publish(event(event_id="e1"))
    (command,) = commands(".venv/bin/buf")
    assert json.loads(await output(command, broker))["event"]["eventId"] == "e1"


if shutil.which("grpcurl"):

    async def test_grpcurl_publishes_subscribes_and_acks(broker: Client) -> None:
        publish, subscribe, ack = commands("grpcurl")
        assert json.loads(await output(publish, broker))["results"][0]["position"] == "1"
        async with run(subscribe, broker) as process, asyncio.timeout(40):
            assert process.stdout
            text = ""
            while not (found := re.search(r'"ack_?[iI]d": "(.+?)"', text)):
                line = await process.stdout.readline()
                assert line, text
                text += line.decode()
            assert ACK_ID in ack
            (result,) = json.loads(await output(ack.replace(ACK_ID, found[1]), broker))["results"]
            assert result["outcome"] == "SETTLE_OUTCOME_DONE"

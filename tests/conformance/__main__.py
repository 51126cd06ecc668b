"""The runner of Python: a line for each case, and failure if one fails. Arguments choose cases by parts of names."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

from tests.conformance.client import Client
from tests.conformance.play import Play

CASES = Path(__file__).parent / "cases"
SIDE_BY_SIDE = 8
MOST_OF_CASE = 120.0  # seconds


class Runner:
    def __init__(self, client: Client, control: str) -> None:
        self._client = client
        self._control = control
        self._slots = asyncio.Semaphore(SIDE_BY_SIDE)
        self.counts = {"ok": 0, "FAILED": 0, "left out": 0}

    async def run(self, file: str, case: dict[str, Any]) -> None:
        async with self._slots:
            verdict, why = "ok", ""
            if case.get("needs_control") and not self._control:
                verdict = "left out"
            else:
                play, number = Play(self._client, self._control), 0
                try:
                    async with asyncio.timeout(MOST_OF_CASE):
                        for number, step in enumerate(case["steps"], 1):  # noqa: B007 (told below)
                            ((verb, arguments),) = step.items()
                            await play.step(verb, arguments)
                except Exception as failed:  # whatever it was, the case failed
                    verdict, why = "FAILED", f": step {number}: {failed!r}"
                finally:
                    await play.close()
            self.counts[verdict] += 1
            print(f"{verdict:8} {file}: {case['name']}{why}", flush=True)  # noqa: T201 (the report)


async def main(wanted: list[str]) -> int:
    cases = [
        (file.stem, case)
        for file in sorted(CASES.glob("*.json"))
        for case in json.loads(file.read_text())
        if not wanted or any(part in case["name"] for part in wanted)
    ]
    async with Client(os.environ["EVENTBROKER_URL"]) as client:
        runner = Runner(client, os.environ.get("EVENTBROKER_CONTROL", ""))
        async with asyncio.TaskGroup() as tasks:
            for file, case in cases:
                if not case.get("needs_control"):
                    tasks.create_task(runner.run(file, case))
        for file, case in cases:
            if case.get("needs_control"):
                await runner.run(file, case)
    print(", ".join(f"{count} {verdict}" for verdict, count in runner.counts.items()))  # noqa: T201
    return 1 if runner.counts["FAILED"] or not runner.counts["ok"] else 0


sys.exit(asyncio.run(main(sys.argv[1:])))

"""The clients of each language, and how their conformance runners are started."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.conftest import ROOT

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class Runner:
    """`needs` are the programs without which it cannot be; `probe` is a command that fails when they are too old.
    `verb` is that of make which builds it before it runs."""

    language: str
    directory: Path
    command: tuple[str, ...]
    needs: tuple[str, ...] = ()
    probe: tuple[str, ...] = ()
    verb: str = ""

    def missing(self) -> list[str]:
        missing = [program for program in self.needs if not shutil.which(program)]
        if self.probe and not missing and subprocess.run(self.probe, check=False).returncode != 0:
            return [f"a newer {self.needs[0]}"]
        return missing


RUNNERS = [
    Runner("python", ROOT, (sys.executable, "-m", "tests.conformance")),
    Runner("go", ROOT / "clients/go", ("go", "run", "./cmd/conformance"), needs=("go",)),
    Runner(
        "node",
        ROOT / "clients/node",
        ("node", "dist/conformance/main.js"),
        needs=("node", "npm"),
        probe=("node", "-e", "process.exit(+(parseInt(process.versions.node) < 20))"),
        verb="client-node",
    ),
    Runner("java", ROOT / "clients/java", ("mvn", "-q", "test-compile", "exec:java"), needs=("java", "mvn")),
]

ALL = os.environ.get("EVENTBROKER_ALL_CLIENTS") == "1"  # then one whose programs are missing fails
PRESENT = [runner for runner in RUNNERS if ALL or not runner.missing()]
LEFT_OUT = [runner for runner in RUNNERS if runner not in PRESENT]

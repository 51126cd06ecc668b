"""CPU seconds of processes and all they have started, as Linux counts them (to 10 ms)."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import NamedTuple, Self

_TICKS = os.sysconf("SC_CLK_TCK")


class Usage(NamedTuple):
    """Seconds of the clock, and CPU seconds: of the broker, of its engines, of everything on this machine."""

    seconds: float
    broker: float
    postgres: float
    valkey: float
    machine: float

    def since(self, before: Self) -> Usage:
        return Usage(*(now - then for now, then in zip(self, before, strict=True)))


def usage_of(broker: int, postgres: int, valkey: int) -> Usage:
    """What these processes have used so far; zeros where there is no /proc."""
    parents: dict[int, int] = {}
    ticks: dict[int, int] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it ended
        pid = int(stat.parent.name)
        parents[pid] = int(fields[1])
        ticks[pid] = sum(map(int, fields[11:15]))  # its own, and of what it started and saw end

    def family(root: int) -> float:
        members = {root}
        for pid in sorted(parents):  # parents come first, but where pids wrapped around
            if parents[pid] in members:
                members.add(pid)
        return sum(ticks.get(pid, 0) for pid in members) / _TICKS

    return Usage(time.monotonic(), family(broker), family(postgres), family(valkey), _machine())


def _machine() -> float:
    try:
        user, nice, system, _idle, _wait, irq, softirq, steal = map(
            int, Path("/proc/stat").read_text().splitlines()[0].split()[1:9]
        )
    except OSError:
        return 0.0
    return (user + nice + system + irq + softirq + steal) / _TICKS

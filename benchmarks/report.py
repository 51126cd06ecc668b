"""What was found: medians beside their targets, as a table and as JSON."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import eventbroker_server

from benchmarks.events import sizes

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from benchmarks.measures import Found
    from benchmarks.stage import Stage

_COSTS = ("broker", "postgres", "valkey", "load")
_SERVER = Path(eventbroker_server.__file__).parent
_PACKAGES = ("asyncpg", "grpcio", "protobuf", "redis", "uvloop")


@dataclass(frozen=True)
class Line:
    """What the table shows of a measure. The target is of the ratio to bare, if `ratio`, else of the figure."""

    measure: str
    figure: str
    says: str
    unit: str = "events/s"
    target: float | None = None
    ratio: bool = False
    at_most: bool = False

    def met(self, value: float) -> bool | None:
        if self.target is None:
            return None
        return value <= self.target if self.at_most else value >= self.target


LINES = (
    Line("bare", "rate", "bare PostgreSQL: INSERT of 100, one connection"),
    Line("end-to-end", "rate", "batches of 100, published to acked", target=0.4, ratio=True),
    Line("publish", "rate", "batches of 100, published only", target=0.5, ratio=True),
    Line("publish", "relayed_after_ms", "  and relayed so long after the last answer", "ms"),
    Line("unary", "rate", "one event a call, published to acked", target=4_700),
    Line("latency", "delivery_p50_ms", "at 100 events/s: publish to receive, p50", "ms", target=2.5, at_most=True),
    Line("latency", "delivery_p99_ms", "  p99", "ms", target=5.0, at_most=True),
    Line("latency", "publish_p50_ms", "  the call of Publish, p50", "ms"),
    Line("latency", "publish_p99_ms", "  p99", "ms"),
    Line("history", "rate", "100,000 stored events, taken and acked", target=80_000),
    Line("backlog", "rate", "100,000 relayed events, taken and acked", target=80_000),
    Line("ordered", "rate", "as the first batches, ordered by aggregate"),
    Line("ordered-backlog", "rate", "100,000 relayed events, ordered by aggregate"),
    Line("fair", "alone_p99_ms", "99 tenants at 100 events/s, fair group: p99", "ms"),
    Line("fair", "beside_p99_ms", "  beside a tenant with a backlog of 100,000", "ms"),
    Line("fair", "p99_ratio", "  that many times", "", target=2.0, at_most=True),
    Line("nacks", "rate", "as the first batches, one event in 10 nacked once"),
    Line("stalled", "own_p99_ms", "at 100 events/s beside a stalled one: p99, other groups", "ms"),
    Line("stalled", "own_ratio", "  times that without it", "x"),
    Line("stalled", "shared_p99_ms", "  p99, the others of its group", "ms"),
    Line("stalled", "shared_ratio", "  times that without it", "x"),
    Line("stalled", "withheld", "  events that it has and does not take", ""),
)


@dataclass(frozen=True)
class Row:
    """A line with what was found; the ratio is to bare PostgreSQL in the same round."""

    line: Line
    median: float
    rounds: list[float]
    ratio: float | None
    met: bool | None
    cpu_us: dict[str, float]  # for each event, by where it was spent


def rows_of(rounds: Sequence[Sequence[Found]]) -> list[Row]:
    """The lines that there are figures for."""
    tables = [{found.measure: found.figures for found in found_in_round} for found_in_round in rounds]
    rows = []
    for line in LINES:
        with_it = [table for table in tables if line.measure in table]
        if not with_it:
            continue
        values = [table[line.measure][line.figure] for table in with_it]
        ratio = (
            median(table[line.measure]["rate"] / table["bare"]["rate"] for table in with_it) if _rated(line) else None
        )
        costs = {
            name: median(table[line.measure][f"{name}_us"] for table in with_it)
            for name in _COSTS
            if line.figure == "rate" and f"{name}_us" in with_it[0][line.measure]
        }
        met = line.met(ratio if line.ratio and ratio is not None else median(values))
        rows.append(Row(line, median(values), values, ratio, met, costs))
    return rows


def _rated(line: Line) -> bool:
    return line.figure == "rate" and line.measure != "bare"


def busy_with_others(rounds: Sequence[Sequence[Found]]) -> float:
    """How many CPUs were busy with other things, in the median."""
    known = [found.figures["others_cpus"] for round_ in rounds for found in round_ if "others_cpus" in found.figures]
    return median(known) if known else 0.0


def write_json(stage: Stage, rows: Sequence[Row], rounds: Sequence[Sequence[Found]], folder: Path) -> Path:
    moment = datetime.now(UTC)
    size, json_size = sizes()
    said = {
        "at": moment.isoformat(timespec="seconds"),
        "commit": _git("rev-parse", "HEAD"),
        "changed": bool(_git("status", "--porcelain", "--untracked-files=no", ".")),
        "cpus": os.cpu_count(),
        "machine": platform.platform(),
        "event_bytes": size,
        "json_bytes": json_size,
        "versions": {
            "python": platform.python_version(),
            "postgres": stage.postgres_version,
            "valkey": stage.valkey_version,
        }
        | {package: version(package) for package in _PACKAGES},
        "rows": [asdict(row) for row in rows],
        "rounds": [[asdict(found) for found in found_in_round] for found_in_round in rounds],
    }
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{moment:%Y%m%dT%H%M%SZ}.json"
    file.write_text(json.dumps(said, indent=2) + "\n")
    return file


def _git(*args: str) -> str:
    """What git says of the code that was measured; empty where there is no repository."""
    try:
        return subprocess.run(["git", *args], cwd=_SERVER, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


_HEADINGS = ("what", "median", "rounds", "to bare", "target", "met", "CPU us")


def show(rows: Sequence[Row]) -> None:
    """Print the table. `rounds` gives the least and the most; `to bare` is the ratio within a round; `CPU us` what an
    event costs in the broker / PostgreSQL / Valkey / the load itself."""
    cells = [_cells(row) for row in rows]
    try:
        from rich.console import Console
        from rich.table import Table
    except ImportError:
        _show_plain(cells)
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for number, heading in enumerate(_HEADINGS):
        table.add_column(heading, justify="left" if number == 0 else "right", no_wrap=True)
    for line in cells:
        table.add_row(*line)
    console = Console()
    console.width = max(console.width, 160)
    console.print(table)


def _show_plain(cells: Sequence[Sequence[str]]) -> None:
    lines = [_HEADINGS, *cells]
    widths = [max(len(line[column]) for line in lines) for column in range(len(_HEADINGS))]
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def _cells(row: Row) -> list[str]:
    line = row.line
    number: Callable[[float], str] = "{:,.0f}".format if line.unit == "events/s" else "{:,.2f}".format
    target = ""
    if line.target is not None:
        bound = f"{line.target:.2f} of bare" if line.ratio else f"{number(line.target)}"
        target = f"{'at most' if line.at_most else 'at least'} {bound}"
    return [
        line.says,
        f"{number(row.median)} {line.unit}",
        f"{number(min(row.rounds))} - {number(max(row.rounds))}",
        "" if row.ratio is None else f"{row.ratio:.2f}",
        target,
        {None: "", True: "yes", False: "NO"}[row.met],
        " / ".join(f"{row.cpu_us[name]:.0f}" for name in _COSTS if name in row.cpu_us),
    ]

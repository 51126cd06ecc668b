"""The demo's screen: a live view while it runs, and the table that reconciles at its end.

On a terminal the view is drawn over itself; elsewhere there is a plain line every two seconds, without colours. It only
reads the books, and never holds up the run for longer than one drawing takes.
"""

from __future__ import annotations

import io
import time
from collections import deque
from typing import TYPE_CHECKING, Self

from rich import box
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from eventbroker_cli.demo.ledger import Ledger, Report
    from eventbroker_cli.demo.run import Options

WIDE = 200  # columns, where there is no terminal to tell
RATE_SPAN = 3.0  # seconds over which a rate is taken


class LiveScreen:
    """What the run shows; a context manager, so that the terminal is put right whatever happens."""

    def __init__(self, options: Options, console: Console | None = None) -> None:
        self.console = console or Console(highlight=False)
        if not self.console.is_terminal:
            self.console = Console(file=self.console.file, width=WIDE, no_color=True, highlight=False)
        self.interval = 0.2 if self.console.is_terminal else 2.0
        self._options = options
        self._ledger: Ledger | None = None
        self._start = time.monotonic()
        self._notes: deque[str] = deque(maxlen=8)
        self._past: deque[tuple[float, list[int]]] = deque()  # what was stored and acked, some seconds back
        self._live = Live(console=self.console, auto_refresh=False, transient=True, redirect_stderr=False)

    def __enter__(self) -> Self:
        if self.console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def begin(self, ledger: Ledger) -> None:
        self._ledger, self._start = ledger, time.monotonic()
        if not self.console.is_terminal:
            self.console.print(self._title(), markup=False)

    def note(self, line: str) -> None:
        """Something worth telling happened."""
        line = f"{time.monotonic() - self._start:6.1f} s  {line}"
        self._notes.append(line)
        if not self.console.is_terminal:
            self.console.print(line, markup=False, soft_wrap=True)

    def refresh(self) -> None:
        if self._ledger is None:
            return
        if self.console.is_terminal:
            self._live.update(self._view(self._ledger), refresh=True)
        else:
            self.console.print(self._line(self._ledger), markup=False, soft_wrap=True)

    def show(self, report: Report) -> None:
        """Prints how it ended."""
        self.console.print(final(report, self._title(), self.console))

    def save(self, report: Report, path: str) -> None:
        """Saves how it ended as an SVG picture."""
        console = Console(record=True, width=WIDE, file=io.StringIO(), force_terminal=True, color_system="truecolor")
        content = final(report, self._title(), console)
        console.width = console.measure(content).maximum + 2
        console.print(content)
        console.save_svg(path, title="eventbroker-demo")

    def _title(self) -> str:
        o = self._options
        return f"{o.events:,} events of {o.tenants:,} tenants and {o.users:,} users -> {o.target}, run {o.run_id}"

    def _line(self, ledger: Ledger) -> str:
        acked = "  ".join(f"{name} {sum(g.acked):,} acked" for name, g in ledger.groups.items())
        elapsed = time.monotonic() - self._start
        return f"{elapsed:6.1f} s  {sum(ledger.stored):,}/{ledger.events:,} published  {acked}"

    def _rates(self, counts: list[int]) -> list[float]:
        now = time.monotonic()
        self._past.append((now, counts))
        while self._past[0][0] < now - RATE_SPAN:
            self._past.popleft()
        then, before = self._past[0]
        return [(count - past) / max(now - then, 0.1) for count, past in zip(counts, before, strict=True)]

    def _view(self, ledger: Ledger) -> RenderableType:
        published, stored = sum(ledger.published), sum(ledger.stored)
        groups = ledger.groups.values()
        rates = self._rates([stored, *(sum(group.acked) for group in groups)])
        grid = Table.grid(padding=(0, 2), expand=True)
        grid.add_column(style="bold", no_wrap=True)
        grid.add_column(ratio=1)
        for _ in range(4):
            grid.add_column(justify="right", no_wrap=True)
        grid.add_row("", "", "", Text("a second", "dim"), Text("unsettled", "dim"), Text("again", "dim"))
        bar = ProgressBar(total=ledger.events, completed=stored, complete_style="cyan")
        grid.add_row("published", bar, f"{stored:,}", f"{rates[0]:,.0f}", f"{published - stored:,}", "")
        for group, rate in zip(groups, rates[1:], strict=True):
            # What the group will get is not known before the day is over: as much of it as until now.
            due, acked, delivered = group.due, sum(group.acked), sum(group.delivered)
            bar = ProgressBar(total=max(1.0, due * ledger.events / max(1, published)), completed=acked)
            again = f"{sum(group.redelivered):,}"
            grid.add_row(group.name, bar, f"{acked:,}", f"{rate:,.0f}", f"{delivered - acked:,}", again)
        foot = f"{time.monotonic() - self._start:.1f} s   {ledger.retries:,} calls tried again"
        notes = Text("\n".join(self._notes), "yellow", overflow="ellipsis", no_wrap=True)
        return Panel(Group(grid, Text(foot, "dim"), notes), title=self._title(), border_style="blue")


def final(report: Report, title: str, console: Console) -> RenderableType:
    """All that is told at the end. On a narrow screen each group gets a table of its own."""
    names = list(report.total.groups)
    tables = [table(report, names)]
    if console.measure(tables[0], options=console.options.update(width=1_000)).maximum > console.width:
        tables = [table(report, [name]) for name in names]
    total, seconds = report.total, max(report.duration, 0.001)
    delivered = sum(cells.delivered for cells in total.groups.values())
    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="dim", no_wrap=True)
    facts.add_column()
    facts.add_row("duration", f"{report.duration:.1f} s, of which {report.publish_duration:.1f} s publishing")
    rate = total.stored / max(report.publish_duration, 0.001)
    facts.add_row("published", f"{rate:,.0f} events/s; {report.retries:,} calls tried again")
    facts.add_row(
        "stored", f"{total.stored - report.duplicates:,} at once, {report.duplicates:,} found stored by a retry"
    )
    facts.add_row("delivered", f"{delivered / seconds:,.0f} events/s, all groups together")
    for number, line in enumerate(report.faults):
        facts.add_row("" if number else "faults", Text(line))
    right = report.sample_checked - len(report.sample_wrong)
    facts.add_row("sample", f"{right:,} of {report.sample_checked:,} events are stored as they were published")
    return Group(Text(title, "bold"), *tables, facts, Text(), verdict(report))


def table(report: Report, names: list[str]) -> Table:
    """The table that reconciles: a row for each event type and the total, the groups as columns."""
    made = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1), collapse_padding=True)
    made.add_column("event type", no_wrap=True, vertical="bottom")
    for column in ("published", "stored"):
        made.add_column(column, justify="right", no_wrap=True, vertical="bottom")
    for name in names:
        for column in (name.replace("-", "-\n") + "\ndelivered", "acked", "re-\ndelivered"):
            made.add_column(column, justify="right", no_wrap=True, vertical="bottom")
        made.add_column("")
    for row in report.rows:
        cells = [row.event_type, f"{row.published:,}", f"{row.stored:,}"]
        for name in names:
            group = row.groups[name]
            wanted = group.delivered or group.acked or group.redelivered or not group.agrees
            counts = (group.delivered, group.acked, group.redelivered)
            cells += [f"{count:,}" for count in counts] if wanted else ["·", "·", "·"]
            cells.append("[green]✓[/]" if group.agrees else "[bold red]✗[/]")
        made.add_row(*cells, style="bold" if row is report.total else "", end_section=row is report.rows[-2])
    return made


def verdict(report: Report) -> Text:
    """Whether it adds up, and if not, what does not."""
    if report.adds_up:
        return Text("✓ Everything adds up.", "bold green")
    lines = [report.failure] if report.failure else []
    lines += [str(wrong) for wrong in report.mismatches]
    if wrong_ids := report.sample_wrong:
        lines.append(f"sample: not stored as published: {', '.join(wrong_ids[:5])}{', ...' if wrong_ids[5:] else ''}")
    return Text("\n  ".join(["✗ It does not add up:", *lines]), "bold red")

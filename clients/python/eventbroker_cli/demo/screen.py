"""The demo's screen: a live view while it runs, and how it ended.

On a terminal the view is drawn over itself; elsewhere there is a plain line every two seconds, without colours. It only
reads the books, and never holds up the run for longer than one drawing takes.
"""

from __future__ import annotations

import io
import re
import time
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from eventbroker_cli.demo.summary import final
from eventbroker_cli.readable import counted

if TYPE_CHECKING:
    from eventbroker_cli.demo.ledger import Ledger
    from eventbroker_cli.demo.options import Options
    from eventbroker_cli.demo.report import Report

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
        self.console.print(final(report, self._title(), self.console.width))

    def save(self, report: Report, path: str) -> None:
        """Saves how it ended as an SVG picture, which loads nothing from elsewhere."""
        console = Console(record=True, width=WIDE, file=io.StringIO(), force_terminal=True, color_system="truecolor")
        content = final(report, self._title(), WIDE)
        console.width = console.measure(content).maximum + 2
        console.print(content)
        svg = re.sub(r"\s*@font-face \{.*?\}", "", console.export_svg(title="eventbroker-demo"), flags=re.DOTALL)
        svg = svg.replace("Fira Code, monospace", "monospace")
        svg = svg.replace("<svg ", '<svg xml:space="preserve" ', 1)  # some renderers drop the blanks that align
        Path(path).write_text(svg, encoding="utf-8")

    def _title(self) -> str:
        o = self._options
        whose = f"{counted(o.tenants, 'tenant')} and {counted(o.users, 'user')}"
        return f"{counted(o.events, 'event')} of {whose} -> {o.target}, run {o.run_id}"

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
        heads = ("events", "a second", "unsettled", "again")
        for _ in heads:
            grid.add_column(justify="right", no_wrap=True, min_width=len(f"{ledger.events:,}"))
        grid.add_row("", "", *(Text(head, "dim") for head in heads))
        bar = ProgressBar(total=ledger.events, completed=stored, complete_style="cyan")
        grid.add_row("published", bar, f"{stored:,}", f"{rates[0]:,.0f}", f"{published - stored:,}", "")
        for group, rate in zip(groups, rates[1:], strict=True):
            # What the group will get is not known before the day is over: as much of it as until now.
            due, acked, delivered = group.due, sum(group.acked), sum(group.delivered)
            bar = ProgressBar(total=max(1.0, due * ledger.events / max(1, published)), completed=acked)
            again = f"{sum(group.redelivered):,}"
            grid.add_row(group.name, bar, f"{acked:,}", f"{rate:,.0f}", f"{delivered - acked:,}", again)
        foot = f"{time.monotonic() - self._start:.1f} s   {counted(ledger.retries, 'call')} tried again"
        notes = Text("\n".join(self._notes), "yellow", overflow="ellipsis", no_wrap=True)
        return Panel(Group(grid, Text(foot, "dim"), notes), title=self._title(), border_style="blue")

"""How the demo ended, for people: the table that reconciles, the measures, and the verdict.

The table has a row for each event type and, side by side, a block of columns for what was published and one for each
group, with one tick for the cells of a block in a row. A narrow screen gets the blocks below each other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from eventbroker_cli.readable import counted

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from eventbroker_cli.demo.report import GroupCells, Report

GAP = "   "  # before a block; cells have two blanks between them
NOTHING = "·"


@dataclass(frozen=True, slots=True)
class Block:
    """A block of columns, of the same rows as the report."""

    title: str
    heads: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    ticks: Sequence[bool]

    @property
    def widths(self) -> list[int]:
        widths = [max(map(len, column)) for column in zip(self.heads, *self.rows, strict=True)]
        widths[0] += max(0, len(self.title) + 4 - (sum(widths) + 2 * len(widths)))  # room for the title
        return widths

    @property
    def width(self) -> int:
        return sum(self.widths) + 2 * len(self.widths)  # with the tick

    def line(self, cells: Iterable[str]) -> str:
        return "  ".join(cell.rjust(width) for cell, width in zip(cells, self.widths, strict=True))


def final(report: Report, title: str, width: int) -> RenderableType:
    """All that is told at the end, on a screen of so many columns."""
    return Group(Text(title, "bold"), Text(), *tables(report, width), measures(report), Text(), verdict(report))


def tables(report: Report, width: int) -> list[Text]:
    """One table, or several when one is too wide."""
    names = [row.event_type for row in report.rows]
    label = max(map(len, names))
    lots: list[list[Block]] = [[]]
    for block in (published(report), *(group(report, name) for name in report.total.groups)):
        if lots[-1] and label + sum(len(GAP) + each.width for each in (*lots[-1], block)) > width:
            lots.append([])
        lots[-1].append(block)
    return [table(names, label, blocks) for blocks in lots]


def published(report: Report) -> Block:
    rows = [(f"{row.published:,}", f"{row.stored:,}") for row in report.rows]
    return Block("", ("published", "stored"), rows, [row.agrees for row in report.rows])


def group(report: Report, name: str) -> Block:
    cells = [row.groups[name] for row in report.rows]
    return Block(name, ("delivered", "acked", "again"), [counts(each) for each in cells], [c.agrees for c in cells])


def counts(cells: GroupCells) -> tuple[str, ...]:
    numbers = (cells.delivered, cells.acked, cells.redelivered)
    return tuple(f"{number:,}" for number in numbers) if any(numbers) or not cells.agrees else (NOTHING,) * 3


def table(names: Sequence[str], label: int, blocks: Sequence[Block]) -> Text:
    """The blocks side by side, with the names of the rows before them."""
    text = Text(no_wrap=True)
    if any(block.title for block in blocks):
        titles = (f" {block.title} ".center(block.width, "─") if block.title else " " * block.width for block in blocks)
        text.append(" " * label + "".join(GAP + title for title in titles) + "\n", "dim")
    heads = "".join(f"{GAP}{block.line(block.heads)}  " for block in blocks)
    text.append("event type".ljust(label) + heads + "\n", "dim")
    rule = "─" * (label + len(heads))
    for number, name in enumerate(names):
        last = number == len(names) - 1
        if last:
            text.append(rule + "\n", "dim")
        style = "bold" if last else ""
        text.append(name.ljust(label), style)
        for block in blocks:
            cells = block.rows[number]
            text.append(GAP + block.line(cells), "dim" if cells[0] == NOTHING else style)
            text.append(" ✓" if block.ticks[number] else " ✗", "green" if block.ticks[number] else "bold red")
        text.append("\n")
    return text


def measures(report: Report) -> Table:
    """Times, rates, faults, and the sample."""
    total, publishing = report.total, max(report.publish_duration, 0.001)
    delivered = sum(cells.delivered for cells in total.groups.values())
    right = report.sample_checked - len(report.sample_wrong)
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column()

    def tell(name: str, *lines: str) -> None:
        for line in lines:
            grid.add_row(name, Text(line))
            name = ""

    tell("duration", f"{report.duration:.1f} s, of which {report.publish_duration:.1f} s publishing")
    tell("published", f"{total.stored / publishing:,.0f} events/s; {counted(report.retries, 'call')} tried again")
    tell("stored", f"{total.stored - report.duplicates:,} at once, {report.duplicates:,} found stored by a retry")
    tell("delivered", f"{delivered / max(report.duration, 0.001):,.0f} events/s, all groups together")
    tell("faults", *report.faults, *report.unproven)
    sample = f"{right:,} of {report.sample_checked:,} events are stored as they were published"
    tell("sample", sample if report.sample_checked else "not checked")
    return grid


def verdict(report: Report) -> Text:
    """Whether it adds up and proves something, and if not, what is wrong."""
    if report.adds_up and not report.unproven:
        return Text("✓ Everything adds up.", "bold green")
    if report.adds_up:
        return Text("\n  ".join(["✗ It adds up, but it proves nothing:", *report.unproven]), "bold red")
    lines = [report.failure] if report.failure else []
    lines += [str(wrong) for wrong in report.mismatches]
    if wrong := report.sample_wrong:
        lines.append(f"sample: not stored as published: {', '.join(wrong[:5])}{', ...' if wrong[5:] else ''}")
    return Text("\n  ".join(["✗ It does not add up:", *lines, *report.unproven]), "bold red")

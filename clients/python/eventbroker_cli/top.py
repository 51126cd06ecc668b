"""`eventbroker top`: what goes through a broker, live."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer
from eventbroker.v1 import stats_service_pb2 as pb
from eventbroker_client import Unavailable
from rich.console import Group as Stack
from rich.live import Live
from rich.text import Text

from eventbroker_cli.command import command
from eventbroker_cli.link import Link
from eventbroker_cli.output import Output, table
from eventbroker_cli.readable import duration, number, seconds_of

if TYPE_CHECKING:
    from rich.console import RenderableType

_EXAMPLES = """
eventbroker top
eventbroker top --every 5 --tenant acme
eventbroker top --frames 1 -o json
"""
_KEPT = 30  # rates of each line
_BARS = "▁▂▃▄▅▆▇█"
_MOST_LINES = 20  # of types, and of groups


class Rates(NamedTuple):
    """Of an event type, a second."""

    published: float
    delivered: float
    acked: float
    failed: float


class History:
    """Turns answers into rates, and keeps the last of them."""

    def __init__(self) -> None:
        self.published: dict[str, deque[float]] = {}
        self.lag: dict[tuple[str, str], deque[float]] = {}
        self.rates: dict[str, Rates] = {}
        self._before: tuple[float, dict[str, Rates]] | None = None

    def add(self, answer: pb.GetStatsResponse, at: float) -> None:
        """`at` is in seconds, of any clock that goes on."""
        counts = {
            each.event_type: Rates(each.published, each.delivered, each.acked, each.failed)
            for each in answer.event_types
        }
        if self._before is not None:
            then, before = self._before
            passed = max(at - then, 1e-3)
            for name, count in counts.items():
                # A broker that was started again counts from nothing.
                steps = [max(0.0, now - was) for now, was in zip(count, before.get(name, (0, 0, 0, 0)), strict=True)]
                self.rates[name] = Rates(*(step / passed for step in steps))
                self.published.setdefault(name, deque(maxlen=_KEPT)).append(self.rates[name].published)
        for group in answer.groups:
            self.lag.setdefault((group.tenant_id, group.name), deque(maxlen=_KEPT)).append(group.lag)
        self._before = at, counts


def add_to(app: typer.Typer) -> None:
    command(app, "top", examples=_EXAMPLES, panel="Look and mend")(top)


async def top(
    link: Link,
    out: Output,
    every: Annotated[float, typer.Option(min=0.2, help="Seconds between two looks.")] = 1.0,
    frames: Annotated[int, typer.Option(min=0, help="End after so many looks; 0: go on.")] = 0,
) -> None:
    """Watch rates, lag and the age of what is not settled; Ctrl-C ends it.

    Rates are those of the broker that answers, and of all tenants together: with --tenant there are groups only. In a
    pipe, or with -o json, each look is printed after the one before.
    """
    history = History()
    live = Live(console=out.console, screen=True, auto_refresh=False) if out.for_people and _seen(out) else None
    if live is not None:
        live.start()
    try:
        look = 0
        while True:
            look += 1
            try:
                answer = await link.ask(link.stats.GetStats, pb.GetStatsRequest(tenant_id=link.tenant))
            except Unavailable as away:
                if live is None:
                    raise
                live.update(Text(f"{away}; trying again", "red"), refresh=True)
            else:
                history.add(answer, time.monotonic())
                if live is not None:
                    live.update(view(answer, history, link.target.url), refresh=True)
                elif out.for_people:
                    out.show(view(answer, history, link.target.url))
                else:
                    out.answer(answer, Text)
            if look == frames:
                return
            await asyncio.sleep(every)
    finally:
        if live is not None:
            live.stop()


def _seen(out: Output) -> bool:
    return out.console.is_terminal


def view(answer: pb.GetStatsResponse, history: History, target: str) -> RenderableType:
    total = [sum(column) for column in zip(*history.rates.values(), strict=True)] or [0.0] * 4
    head = Text.assemble(
        (target, "bold"),
        f"  published {_rate(total[0])}/s  delivered {_rate(total[1])}/s  acked {_rate(total[2])}/s  ",
        (f"failed {_rate(total[3])}/s", "red" if total[3] else ""),
    )
    none = Rates(0, 0, 0, 0)
    types = sorted(answer.event_types, key=lambda each: (-history.rates.get(each.event_type, none).published,))
    rows = [
        (
            Text(each.event_type, "cyan"),
            _rate(rates.published),
            Text(spark(history.published.get(each.event_type, ())), "green"),
            _rate(rates.delivered),
            _rate(rates.acked),
            Text(_rate(rates.failed), "red" if rates.failed else ""),
            duration(seconds_of(each.p99_latency)) if each.HasField("p99_latency") else "",
        )
        for each in types[:_MOST_LINES]
        for rates in [history.rates.get(each.event_type, none)]
    ]
    heads = ("event type", ">published/s", "", ">delivered/s", ">acked/s", ">failed/s", ">p99")
    groups = sorted(answer.groups, key=lambda each: -each.lag)
    standing = [
        (
            each.name,
            each.tenant_id,
            Text(number(each.lag), "yellow" if each.lag else ""),
            Text(spark(history.lag[each.tenant_id, each.name]), "yellow"),
            duration(seconds_of(each.oldest_unsettled_age)) if each.HasField("oldest_unsettled_age") else "",
        )
        for each in groups[:_MOST_LINES]
    ]
    parts: list[RenderableType] = [head, Text(), table(heads, rows), Text()]
    parts.append(table(("group", "tenant", ">lag", "", ">oldest unsettled"), standing))
    if len(types) > _MOST_LINES or len(groups) > _MOST_LINES:
        parts.append(Text(f"the first {_MOST_LINES} of {len(types)} types and {len(groups)} groups", "dim"))
    return Stack(*parts)


def spark(values: deque[float] | tuple[float, ...]) -> str:
    """A bar for each value, the highest being full."""
    most = max(values, default=0.0)
    return "".join(_BARS[round(value / most * (len(_BARS) - 1))] if most else _BARS[0] for value in values)


def _rate(rate: float) -> str:
    return f"{rate:,.0f}" if rate >= 10 or not rate else f"{rate:.1f}"
